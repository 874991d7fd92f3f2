"""The composition root.

What imports make stays, and Python's cycle collector looked at it 300 to 500 times before a process of ours had begun.
Here it waits for more; a host sets it once more when it serves (slot_host.py).
"""

import gc

gc.set_threshold(10_000, 10, 10)
