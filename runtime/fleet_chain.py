"""A chain of any size for the fleet: real district names, numbered stores, the demonstration's books."""

from __future__ import annotations

import random

from devices.fleet.days import opening_hours
from devices.fleet.orders import Article, FleetLane, FleetTerminal
from models.domain.errors import Refused
from models.domain.ids import StoreId
from runtime.chains import ChainDoc, LaneDoc, Name, StoreDoc, TerminalDoc, read_chain, terminals_of
from runtime.settings import CONFIGS

STORES_MAX = 10_000
TERMINALS_MAX = 8
POS_EVERY = 3
"""Every third store's till owns the basket."""
DISTRICTS: tuple[tuple[str, str, str], ...] = (
    ("gz-tianhe", "广州天河", "Guangzhou Tianhe"),
    ("gz-yuexiu", "广州越秀", "Guangzhou Yuexiu"),
    ("gz-haizhu", "广州海珠", "Guangzhou Haizhu"),
    ("gz-liwan", "广州荔湾", "Guangzhou Liwan"),
    ("gz-baiyun", "广州白云", "Guangzhou Baiyun"),
    ("gz-huangpu", "广州黄埔", "Guangzhou Huangpu"),
    ("gz-panyu", "广州番禺", "Guangzhou Panyu"),
    ("gz-huadu", "广州花都", "Guangzhou Huadu"),
    ("gz-nansha", "广州南沙", "Guangzhou Nansha"),
    ("gz-zengcheng", "广州增城", "Guangzhou Zengcheng"),
    ("sz-futian", "深圳福田", "Shenzhen Futian"),
    ("sz-luohu", "深圳罗湖", "Shenzhen Luohu"),
    ("sz-nanshan", "深圳南山", "Shenzhen Nanshan"),
    ("sz-baoan", "深圳宝安", "Shenzhen Bao'an"),
    ("sz-longgang", "深圳龙岗", "Shenzhen Longgang"),
    ("sz-yantian", "深圳盐田", "Shenzhen Yantian"),
    ("sz-longhua", "深圳龙华", "Shenzhen Longhua"),
    ("sz-pingshan", "深圳坪山", "Shenzhen Pingshan"),
    ("sz-guangming", "深圳光明", "Shenzhen Guangming"),
    ("fs-chancheng", "佛山禅城", "Foshan Chancheng"),
    ("fs-nanhai", "佛山南海", "Foshan Nanhai"),
    ("fs-shunde", "佛山顺德", "Foshan Shunde"),
    ("fs-sanshui", "佛山三水", "Foshan Sanshui"),
    ("fs-gaoming", "佛山高明", "Foshan Gaoming"),
    ("dg-nancheng", "东莞南城", "Dongguan Nancheng"),
    ("dg-humen", "东莞虎门", "Dongguan Humen"),
    ("dg-changan", "东莞长安", "Dongguan Chang'an"),
    ("zs-shiqi", "中山石岐", "Zhongshan Shiqi"),
    ("zs-xiaolan", "中山小榄", "Zhongshan Xiaolan"),
    ("zh-xiangzhou", "珠海香洲", "Zhuhai Xiangzhou"),
    ("zh-jinwan", "珠海金湾", "Zhuhai Jinwan"),
    ("hz-huicheng", "惠州惠城", "Huizhou Huicheng"),
    ("hz-huiyang", "惠州惠阳", "Huizhou Huiyang"),
    ("jm-pengjiang", "江门蓬江", "Jiangmen Pengjiang"),
    ("jm-xinhui", "江门新会", "Jiangmen Xinhui"),
    ("zq-duanzhou", "肇庆端州", "Zhaoqing Duanzhou"),
)
_PLACES: tuple[TerminalDoc, ...] = (
    TerminalDoc(suffix="f1", role="face", profile="dragonfly-2"),
    TerminalDoc(suffix="t1", role="till", profile="till"),
    TerminalDoc(suffix="f2", role="face", profile="dragonfly-2"),
)


def fleet_chain(stores: int, terminals: int) -> ChainDoc:
    """A chain of so many stores with one lane each: a face terminal, a till, then further face terminals.

    Articles, plans and consents are the demonstration's. Raises Refused `fleet_size` outside 1..10,000 stores and
    1..8 terminals.
    """
    if not (1 <= stores <= STORES_MAX and 1 <= terminals <= TERMINALS_MAX):
        raise Refused(
            "fleet_size",
            f"{stores} stores x {terminals} terminals",
            f"1 to {STORES_MAX} stores, 1 to {TERMINALS_MAX} terminals",
        )
    demo = read_chain(CONFIGS / "chains" / "demo.yaml")
    more = (TerminalDoc(suffix=f"f{n}", role="face", profile="dragonfly-2") for n in range(3, TERMINALS_MAX))
    lane = LaneDoc(lane="lane-1", terminals=(*_PLACES, *more)[:terminals])
    entities = [entity.id for entity in demo.entities]
    named = tuple(_store(n, entities[n % len(entities)], terminals) for n in range(stores))
    return demo.model_copy(update={"chain": "fleet", "stores": named, "lanes": (lane,)})


def _store(n: int, entity: str, terminals: int) -> StoreDoc:
    slug, zh, en = DISTRICTS[n % len(DISTRICTS)]
    number = n // len(DISTRICTS) + 1
    return StoreDoc(
        id=f"{slug}-{number:03d}",
        name=Name(zh=f"{zh}{number}店", en=f"{en} No. {number}"),
        entity=entity,
        basket_owner="pos" if terminals > 1 and n % POS_EVERY == POS_EVERY - 1 else "storeops",
    )


def lanes_of(chain: ChainDoc, key: str, seed: int) -> list[FleetLane]:
    """The fleet's lanes, with derived secrets and opening hours drawn from the seed."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    by_lane: dict[tuple[str, str], list[FleetTerminal]] = {}
    for one in terminals_of(chain, key):
        place = by_lane.setdefault((one.store, one.lane), [])
        place.append(FleetTerminal(one.terminal, one.role, one.profile, one.secret))
    owners = {store.id: store.basket_owner for store in chain.stores}
    return [
        FleetLane(StoreId(store), owners[store] == "pos", *opening_hours(rng), tuple(terminals))
        for (store, _), terminals in by_lane.items()
    ]


def articles_of(chain: ChainDoc) -> tuple[Article, ...]:
    """What the fleet's customers buy: everything that needs no clerk's check and is sold for our own account."""
    return tuple(Article(item.code, item.name.zh, item.unit_fen) for item in chain.items if not item.flags)


def vouchers_of(chain: ChainDoc) -> tuple[str, ...]:
    """The codes that anybody may bring, as often as they like."""
    return tuple(
        str(one["code"]) for one in chain.vouchers if "code" in one and not {"quota", "member_quota"} & set(one)
    )
