"""rangeformer: transformers that do numerical linear algebra, checked by classical linear algebra."""

from rangeformer.deprecation import renamed_attributes as _renamed_attributes
from rangeformer.drivers.eigen import eigsh as eigsh
from rangeformer.drivers.eigen import eigvalsh as eigvalsh
from rangeformer.drivers.gradient_error import gradient_error as gradient_error
from rangeformer.drivers.logdet import inv_quad_logdet as inv_quad_logdet
from rangeformer.drivers.logdet import logdet as logdet
from rangeformer.drivers.lstsq import lstsq as lstsq
from rangeformer.drivers.sample import sample_gaussian as sample_gaussian
from rangeformer.drivers.solve import linear_solve as linear_solve
from rangeformer.drivers.svd import svdvals as svdvals
from rangeformer.drivers.trace import inverse_matmul as inverse_matmul
from rangeformer.drivers.trace import inverse_trace as inverse_trace
from rangeformer.drivers.trace import trace as trace
from rangeformer.models.checkpoint import load as load
from rangeformer.models.checkpoint import save as save
from rangeformer.models.features import RangeFormer as RangeFormer
from rangeformer.models.learned_krylov import LearnedKrylovModel as LearnedKrylovModel
from rangeformer.models.looped_model import LoopedModel as LoopedModel
from rangeformer.operators import MatrixOperator as MatrixOperator
from rangeformer.operators import Reads as Reads
from rangeformer.operators import as_operator as as_operator
from rangeformer.preconditioners.base import Preconditioner as Preconditioner
from rangeformer.preconditioners.base import Structure as Structure
from rangeformer.preconditioners.build import build_preconditioner as build_preconditioner
from rangeformer.preconditioners.cholesky import CholeskyPreconditioner as CholeskyPreconditioner
from rangeformer.preconditioners.columns import ColumnPreconditioner as ColumnPreconditioner
from rangeformer.preconditioners.global_local import RangeFormerPreconditioner as RangeFormerPreconditioner
from rangeformer.preconditioners.nystrom import NystromPreconditioner as NystromPreconditioner
from rangeformer.preconditioners.options import BuildContext as BuildContext
from rangeformer.preconditioners.options import NoPreconditioner as NoPreconditioner
from rangeformer.preconditioners.options import PreconditionerOptions as PreconditionerOptions
from rangeformer.results import ConvergenceWarning as ConvergenceWarning
from rangeformer.results import EigenPairs as EigenPairs
from rangeformer.results import Estimate as Estimate
from rangeformer.results import InvQuadLogdet as InvQuadLogdet
from rangeformer.results import LeastSquares as LeastSquares
from rangeformer.results import LogDeterminant as LogDeterminant
from rangeformer.results import Solution as Solution
from rangeformer.results import Spectrum as Spectrum
from rangeformer.results import Status as Status
from rangeformer.solvers.base import Solver as Solver
from rangeformer.solvers.base import Stopping as Stopping
from rangeformer.solvers.base import System as System
from rangeformer.solvers.choice import LearnedKrylov as LearnedKrylov
from rangeformer.solvers.iterative import CG as CG
from rangeformer.solvers.iterative import BlockLanczos as BlockLanczos

__version__ = "0.1.0"

__getattr__ = _renamed_attributes(__name__, {"GalerkinRangeFormer": LearnedKrylovModel})
