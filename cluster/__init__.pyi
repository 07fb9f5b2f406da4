from .client import Answer as Answer
from .client import AsyncClient as AsyncClient
from .client import Client as Client
from .client import EndpointError as EndpointError
from .client import PictureRefusedError as PictureRefusedError
from .client import Problem as Problem
from .client import RequestRefusedError as RequestRefusedError
