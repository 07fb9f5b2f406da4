from .api import pack as pack
from .dataset.dataset import Dataset as Dataset
from .dataset.dataset import open_dataset as open_dataset
from .dataset.split import Split as Split
from .errors import DecodeError as DecodeError
from .errors import Interrupted as Interrupted
from .errors import ShardError as ShardError
from .errors import UsageError as UsageError
