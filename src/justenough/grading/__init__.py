"""Tasks and their grading: problems, answers out of model output, right or wrong."""

from justenough.grading.graders import Exact, Grader, open_grader
from justenough.grading.tasks import BUILT_IN, Problem, problem_of, read_tasks
from justenough.signal.answers import extract_answer

__all__ = ["BUILT_IN", "Exact", "Grader", "Problem", "extract_answer", "open_grader", "problem_of", "read_tasks"]
