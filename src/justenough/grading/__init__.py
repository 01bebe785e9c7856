"""Tasks and their grading: problems, answers out of model output, right or wrong."""

from justenough.grading.answers import extract_answer
from justenough.grading.graders import Exact, Grader, open_grader
from justenough.grading.tasks import Problem, Task, built_in_tasks, read_tasks

__all__ = ["Exact", "Grader", "Problem", "Task", "built_in_tasks", "extract_answer", "open_grader", "read_tasks"]
