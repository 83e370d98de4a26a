"""Charton's "Linear algebra with transformers" (LAWT): matrices as tokens, answers as tokens; docs/results/lawt.md."""

from rangeformer.baselines.lawt.config import LawtConfig as LawtConfig
from rangeformer.baselines.lawt.decoding import beam as beam
from rangeformer.baselines.lawt.decoding import greedy as greedy
from rangeformer.baselines.lawt.encodings import ENCODINGS as ENCODINGS
from rangeformer.baselines.lawt.evaluation import Scores as Scores
from rangeformer.baselines.lawt.evaluation import evaluate as evaluate
from rangeformer.baselines.lawt.evaluation import rounding_ceiling as rounding_ceiling
from rangeformer.baselines.lawt.model import LawtTransformer as LawtTransformer
from rangeformer.baselines.lawt.prediction import predict as predict
from rangeformer.baselines.lawt.problems import Problems as Problems
from rangeformer.baselines.lawt.problems import Source as Source
from rangeformer.baselines.lawt.problems import draw_problems as draw_problems
from rangeformer.baselines.lawt.recurrent import LawtRecurrent as LawtRecurrent
from rangeformer.baselines.lawt.tasks import TASKS as TASKS
from rangeformer.baselines.lawt.tasks import answer as answer
from rangeformer.baselines.lawt.vocabulary import Vocabulary as Vocabulary
