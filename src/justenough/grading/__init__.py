"""Tasks and their grading: problems, answers out of model output, right or wrong."""

from justenough.grading.graders import Exact, Grader, open_grader
from justenough.grading.tasks import Problem, Task, built_in_tasks, read_tasks
from justenough.signal.answers import extract_answer

__all__ = ["Exact", "Grader", "Problem", "Task", "built_in_tasks", "extract_answer", "open_grader", "read_tasks"]
