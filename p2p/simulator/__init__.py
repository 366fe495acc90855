"""The swarm in virtual time: the real scheduler and chooser on virtual hosts and links.

What is modelled: each host's uplink, shared fairly by the uploads that are in service; its
downlink; shared links of racks and sites; latency, and the rate that TCP reaches under loss;
sessions, coalesced availability, upload slots and priorities; the origin. What is not: CPU, TCP's
start, packets. Everything is a function of the scenario and its seed, to the byte.
"""

from .report import Report
from .scenario import Scenario
from .swarm import simulate

__all__ = ["Report", "Scenario", "simulate"]
