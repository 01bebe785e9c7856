"""Tasks and their grading: problems, the answers in model output, and whether they are right."""

from justenough.grading.graders import Exact, Grader, open_grader
from justenough.grading.tasks import Problem, Task, built_in_tasks, read_tasks

__all__ = ["Exact", "Grader", "Problem", "Task", "built_in_tasks", "open_grader", "read_tasks"]
