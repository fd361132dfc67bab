"""A teacher behind an OpenAI-compatible server."""

from octavo.tasks.server.config import ServerConfig as ServerConfig
from octavo.tasks.server.teacher import ServerTeacher as ServerTeacher
