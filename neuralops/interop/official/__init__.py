"""Weights that the authors of a method publish, in the operators of this library.

One function a method. Each takes a mapping from the names of the authors' PyTorch parameters to arrays, whatever
`np.asarray` takes, and gives the operator with the same outputs. Neither PyTorch nor a pickled file is read here:

```python
arrays = {name: x.numpy() for name, x in model.state_dict().items()}     # where PyTorch is; np.savez(path, **arrays)
op = no.interop.official.multionet(arrays, trunk_activation="Tanh_Sin", branch_activation="Tanh_Sin")
u = jax.vmap(lambda a: op(a[None], query=x.T))(inputs)                   # inputs (samples, sensors), x (points, ndim)
op = no.interop.official.lsm(arrays, deformation=iphi_arrays)            # LSM_Irregular_Geo and IPHI
u = jax.vmap(lambda x, rr: op(x, coords=x, code=rr))(x, rr)              # x (samples, 2, points), rr (samples, 42)
op = no.interop.official.lpn(arrays)                                     # the toy network, lpn_mnist or lpn_128
```
"""

from neuralops.interop.official.branch_trunk import deeponet as deeponet
from neuralops.interop.official.branch_trunk import encoder as encoder
from neuralops.interop.official.branch_trunk import multionet as multionet
from neuralops.interop.official.latent_spectral import lsm as lsm
from neuralops.interop.official.proximal import lpn as lpn
from neuralops.interop.official.transolvers import transolver as transolver

__all__ = ["deeponet", "encoder", "lpn", "lsm", "multionet", "transolver"]
