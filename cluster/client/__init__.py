"""The client of an endpoint: sends pictures, returns answers, and waits if the endpoint is busy."""

from cluster.client.answer import Answer as Answer
from cluster.client.clients import AsyncClient as AsyncClient
from cluster.client.clients import Client as Client
from cluster.client.problem import EndpointError as EndpointError
from cluster.client.problem import PictureRefusedError as PictureRefusedError
from cluster.client.problem import Problem as Problem
from cluster.client.problem import RequestRefusedError as RequestRefusedError
