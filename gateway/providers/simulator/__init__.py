"""A payment provider in a box: a separate process that speaks Alipay's protocol with real signatures.

It stands for another company's system: it shares no table, key or clock with ours, and keeps its own books.
"""

from gateway.providers.simulator.admin import SimulatorAdmin
from gateway.providers.simulator.app import create_simulator_app, run_simulator

__all__ = ["SimulatorAdmin", "create_simulator_app", "run_simulator"]
