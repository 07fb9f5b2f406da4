from .api import compare_runs as compare_runs
from .api import load_space as load_space
from .api import open_sweep as open_sweep
from .api import run_sweep as run_sweep
from .api import write_report as write_report
from .result.sweep import Sweep as Sweep
from .space.options import Space as Space
from .stats.compare import Comparison as Comparison
