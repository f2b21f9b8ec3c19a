"""What is trained: models and data, addressed so that arms can be paired."""

from .base import Task
from .gpt import GPT
from .text import Corpus, TextTask, load_corpus

__all__ = ["GPT", "Corpus", "Task", "TextTask", "load_corpus"]
