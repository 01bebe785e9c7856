"""Rules × traces → typed results with intervals."""

from justenough.evaluation.costs import Price, load_prices
from justenough.evaluation.evaluate import Evaluation, evaluate
from justenough.evaluation.figures import Figures
from justenough.evaluation.recommend import Recommendation, recommend
from justenough.evaluation.table import Table, table_of

__all__ = [
    "Evaluation",
    "Figures",
    "Price",
    "Recommendation",
    "Table",
    "evaluate",
    "load_prices",
    "recommend",
    "table_of",
]
