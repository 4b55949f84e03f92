"""Layers on function spaces."""

from neuralops.nn.convex import ConvexDense as ConvexDense
from neuralops.nn.convex_conv import ConvexConv as ConvexConv
from neuralops.nn.convex_integral import ConvexIntegral as ConvexIntegral
from neuralops.nn.deformation import Deformation as Deformation
from neuralops.nn.encoder import ConvEncoder as ConvEncoder
from neuralops.nn.encoder import MLPEncoder as MLPEncoder
from neuralops.nn.encoder import PointEncoder as PointEncoder
from neuralops.nn.kernel_factors import conv_counts as conv_counts
from neuralops.nn.latent import NeuralSpectralBlock as NeuralSpectralBlock
from neuralops.nn.multigrid import MultigridConv as MultigridConv
from neuralops.nn.norm import Affine as Affine
from neuralops.nn.norm import GroupNorm as GroupNorm
from neuralops.nn.norm import LayerNorm as LayerNorm
from neuralops.nn.physics_attention import PhysicsAttention as PhysicsAttention
from neuralops.nn.pointwise import ChannelMLP as ChannelMLP
from neuralops.nn.pointwise import Linear as Linear
from neuralops.nn.pointwise import SoftGate as SoftGate
from neuralops.nn.pointwise import gelu as gelu
from neuralops.nn.separable import SeparableConv as SeparableConv
from neuralops.nn.spectral import SpectralConv as SpectralConv

__all__ = [
    "Affine",
    "ChannelMLP",
    "ConvEncoder",
    "ConvexConv",
    "ConvexDense",
    "ConvexIntegral",
    "Deformation",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "MLPEncoder",
    "MultigridConv",
    "NeuralSpectralBlock",
    "PhysicsAttention",
    "PointEncoder",
    "SeparableConv",
    "SoftGate",
    "SpectralConv",
    "conv_counts",
    "gelu",
]
