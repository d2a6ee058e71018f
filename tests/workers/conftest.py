"""The same whole relay as the flow tests have."""

from tests.flow.conftest import bench, box, make_bench

__all__ = ["bench", "box", "make_bench"]
