"""A few line icons, drawn for this console: 20 x 20, stroke in the text's colour, hidden from screen readers."""

from __future__ import annotations

_PATHS = {
    "wall": "M3 4h6v5H3zM11 4h6v5h-6zM3 11h6v5H3zM11 11h6v5h-6z",
    "members": "M10 9.5a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM4 16.5c.6-3 3-4.5 6-4.5s5.400 1.500 6 4.500",
    "payments": "M2.500 5.500h15v9h-15zM2.500 8.500h15M5.500 12h3",
    "prices": "M3 4.500v5l7.500 7.500 6-6L9 3.500H4zM6.500 6.800v.2",
    "receipts": "M4.500 2.500v15l2-1.500 2 1.500 1.500-1.500 1.500 1.500 2-1.500 2 1.500v-15z"
    "M7.500 6.500h5M7.500 9.500h5",
    "invoices": "M4 3h8.500L16 6.500V17H4zM12 3v4h4M7 10.500h6M7 13.500h3.500",
    "plans": "M3 6.500h14v2a1.500 1.500 0 0 0 0 3v2H3v-2a1.500 1.500 0 0 0 0-3zM8 6.500v7",
    "settlement": "M10 3v14M5.500 6h9M5.500 6L3 11.500h5zM14.500 6L12 11.500h5z",
    "drawers": "M3 8h14v8.500H3zM3 12h14M8.500 14.300h3M5.500 8V3.500h9V8",
    "reconciliation": "M4 3.500h12v13H4zM4 7.500h12M7.500 12l2 2 3.500-4",
    "ledger": "M4 3h10.500a1.500 1.500 0 0 1 1.500 1.500V17H5.500A1.500 1.500 0 0 1 4 15.500z"
    "M7 3v14M9.500 7h4M9.500 10h4",
    "stores": "M3 8l1.500-4h11L17 8M4 8v8.500h12V8M3 8h14M8 16.500v-5h4v5",
    "terminals": "M5.500 3h9v11h-9zM7.500 17h5M10 14v3M8.500 6.500h3",
    "faces": "M3 7V3h4M13 3h4v4M17 13v4h-4M7 17H3v-4M7.500 8v1M12.500 8v1M7.500 12.500c1.500 1.300 3.500 1.300 5 0",
    "privacy": "M10 2.500l6.500 2.500v4.500c0 4-2.700 6.800-6.500 8-3.800-1.200-6.500-4-6.500-8V5z"
    "M7.500 10l2 2 3.500-4",
    "system": "M3 5.500h14M3 10h14M3 14.500h14M7 4v3M13 8.500v3M6 13v3",
    "rollouts": "M3 16.500v-3h4.500v-4H12v-4h5M13.500 2.500L17 5.500l-3.500 3",
    "switches": "M10 3v6M6 5.300a6.500 6.500 0 1 0 8 0",
    "close": "M5 5l10 10M15 5L5 15",
    "menu": "M3 5.500h14M3 10h14M3 14.500h14",
    "next": "M8 5l5 5-5 5",
    "external": "M8 4H4v12h12v-4M11 4h5v5M16 4l-7 7",
    "camera": "M3 6h3l1.500-2h5L14 6h3v10H3zM10 13.500a3 3 0 1 0 0-6 3 3 0 0 0 0 6z",
    "check": "M4 10.500l4 4 8-9",
    "alert": "M10 3l8 14H2zM10 8.500v4M10 14.800v.2",
    "search": "M9 14.500a5.500 5.500 0 1 0 0-11 5.500 5.500 0 0 0 0 11zM13 13l4 4",
    "sun": "M10 13.500a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zM10 2v1.500M10 16.500V18M2 10h1.500M16.500 10H18",
    "leave": "M8 4H4v12h4M12 6.500l3.500 3.500-3.500 3.500M7.500 10h8",
}


def svg(name: str) -> str:
    """The icon as inline SVG. Raises KeyError for a name that was not drawn."""
    return (
        '<svg class="icon" viewBox="0 0 20 20" width="20" height="20" fill="none" stroke="currentColor" '
        'stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">'
        f'<path d="{_PATHS[name]}"/></svg>'
    )
