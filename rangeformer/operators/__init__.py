"""How a matrix is read: one interface over tensors, arrays, sparse matrices and operators."""

from rangeformer.operators.base import MatrixOperator as MatrixOperator
from rangeformer.operators.base import Reads as Reads
from rangeformer.operators.convert import as_operator as as_operator
from rangeformer.operators.dense import DenseOperator as DenseOperator
from rangeformer.operators.products import ProductOperator as ProductOperator
from rangeformer.operators.products import ScipyOperator as ScipyOperator
from rangeformer.operators.sparse import SparseOperator as SparseOperator
from rangeformer.operators.transposed import TransposedOperator as TransposedOperator
