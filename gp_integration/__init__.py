"""RangeFormer inside GPyTorch: one context manager, and one LinearOperator.

Importing this package changes nothing in GPyTorch or BoTorch; entering
`settings.use_rangeformer()` does, and leaving the last such block undoes it.

Example:
    >>> from gp_integration import settings
    >>> settings.use_rangeformer.on()
    False
    >>> with settings.use_rangeformer(rtol=1e-4):
    ...     settings.use_rangeformer.on()
    True
"""

from gp_integration import settings as settings
from gp_integration.left_alone import LeftAloneWarning as LeftAloneWarning
from gp_integration.operator import RangeFormerLinearOperator as RangeFormerLinearOperator
from gp_integration.report import Report as Report
