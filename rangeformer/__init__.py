"""rangeformer: transformers that do numerical linear algebra, checked by classical linear algebra."""

from rangeformer.builders import ColumnPreconditioner as ColumnPreconditioner
from rangeformer.builders import NystromPreconditioner as NystromPreconditioner
from rangeformer.builders import RangeFormerPreconditioner as RangeFormerPreconditioner
from rangeformer.builders import build_preconditioner as build_preconditioner
from rangeformer.checkpoint import load as load
from rangeformer.checkpoint import save as save
from rangeformer.eigen import eigsh as eigsh
from rangeformer.eigen import eigvalsh as eigvalsh
from rangeformer.gaussian import sample_gaussian as sample_gaussian
from rangeformer.inverse import inverse_matmul as inverse_matmul
from rangeformer.inverse import inverse_trace as inverse_trace
from rangeformer.inverse import trace as trace
from rangeformer.least_squares import lstsq as lstsq
from rangeformer.logdet import inv_quad_logdet as inv_quad_logdet
from rangeformer.logdet import logdet as logdet
from rangeformer.looped.galerkin import GalerkinRangeFormer as GalerkinRangeFormer
from rangeformer.looped.member import LoopedModel as LoopedModel
from rangeformer.model import RangeFormer as RangeFormer
from rangeformer.operators import MatrixOperator as MatrixOperator
from rangeformer.operators import Reads as Reads
from rangeformer.operators import as_operator as as_operator
from rangeformer.preconditioner import Preconditioner as Preconditioner
from rangeformer.preconditioner import Structure as Structure
from rangeformer.singular import svdvals as svdvals
from rangeformer.solution import ConvergenceWarning as ConvergenceWarning
from rangeformer.solution import EigenPairs as EigenPairs
from rangeformer.solution import Estimate as Estimate
from rangeformer.solution import InvQuadLogdet as InvQuadLogdet
from rangeformer.solution import LeastSquares as LeastSquares
from rangeformer.solution import LogDeterminant as LogDeterminant
from rangeformer.solution import Solution as Solution
from rangeformer.solution import Spectrum as Spectrum
from rangeformer.solve import linear_solve as linear_solve

__version__ = "0.1.0"
