"""Neural operators, learned priors and linear solvers for PDEs in JAX."""

from neuralops import nn as nn
from neuralops import operator as operator
from neuralops.grid import Grid as Grid
from neuralops.grid import resample as resample
from neuralops.models import FNO as FNO
from neuralops.operator import AbstractOperator as AbstractOperator
from neuralops.operator import Operator as Operator
from neuralops.operator import as_operator as as_operator
from neuralops.operator import as_pair as as_pair
