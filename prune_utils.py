"""The public face of pruning: `import prune_utils`.

    plan    = prune_utils.plan(model, percent=0.7, strategy="normal", layer_keep=0.01, round_to=1)
    masked  = prune_utils.masked(model, plan)                # same shapes, gamma of cut channels 0
    compact = prune_utils.apply(model, plan, fold="exact")   # a new network with its own .cfg
    proof   = prune_utils.prove(model, plan, compact)        # raises ProofError unless the two are equal
    prune_utils.save_proven(compact, "small.cfg", "small.pth", "small.weights")

Nothing is defined here. Look in
    darkslim/channels.py             Channels: which channels go together, and which are protected
    darkslim/pruning/importance.py   SCORES, gamma, sparsity: how much a class matters
    darkslim/pruning/plan.py         PrunePlan, plan, masked
    darkslim/pruning/surgery.py      apply
    darkslim/pruning/verify.py       Proof, prove, save_proven
    darkslim/training/sparsity.py    prunable_gammas, L1, dose: sparsity while training
"""

from darkslim.channels import Channels
from darkslim.pruning.budget import Target
from darkslim.pruning.importance import SCORES, Context, Sparsity, sparsity
from darkslim.pruning.plan import PrunePlan, masked, plan
from darkslim.pruning.surgery import apply
from darkslim.pruning.verify import Proof, prove, save_proven
from darkslim.training.sparsity import L1, dose, prunable_gammas

__all__ = ["L1", "SCORES", "Channels", "Context", "Proof", "PrunePlan", "Sparsity", "Target", "apply", "dose", "masked", "plan", "prove",
           "prunable_gammas", "save_proven", "sparsity"]
