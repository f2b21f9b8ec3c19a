"""Tasks: models and data, addressed so that arms can be paired."""

from .base import Task
from .check import check_task
from .gpt import GPT
from .images import Images, ImageTask, load_images
from .python import import_task
from .resnet import ResNet18
from .text import Corpus, TextTask, load_corpus

__all__ = [
    "GPT",
    "Corpus",
    "ImageTask",
    "Images",
    "ResNet18",
    "Task",
    "TextTask",
    "check_task",
    "import_task",
    "load_corpus",
    "load_images",
]
