"""The public face of pruning: `import prune_utils`.

    plan    = prune_utils.plan(model, percent=0.7, strategy="slim", layer_keep=0.01, round_to=1)
    masked  = prune_utils.masked(model, plan)                # same shapes, gamma of cut channels 0
    compact = prune_utils.apply(model, plan, fold="exact")   # a new network with its own .cfg
    proof   = prune_utils.prove(model, plan, compact)        # raises ProofError unless the two are equal
    prune_utils.reconstruct(model, compact, plan, batches)   # optional: what stays is solved again, or
    prune_utils.recalibrate(compact, batches)                # optional: only batch norms re-estimated
    prune_utils.save_proven(compact, "small.cfg", "small.pth", "small.weights")

    plan    = prune_utils.plan(model, strategy="slim", target=prune_utils.Target("macs", 0.4))    # a budget
    smaller = prune_utils.remove_blocks(model, 3).model      # without its three weakest residual blocks
    plain   = prune_utils.fuse(compact)                      # batch norms folded into the convolutions

Nothing is defined here. Look in
    darkslim/network/channels.py       Channels: which channels go together, and which are protected
    darkslim/pruning/importance.py     SCORES, Context, sparsity: how much a channel matters
    darkslim/pruning/policy.py         SCORE_NAMES, class_scores: the strategies
    darkslim/pruning/budget.py         Target
    darkslim/pruning/plan.py           PrunePlan, plan, masked
    darkslim/pruning/blocks.py         find_blocks, remove_blocks, prove_removal
    darkslim/pruning/surgery.py        apply
    darkslim/pruning/verify.py         Proof, prove, fold_differences, save_proven
    darkslim/pruning/reconstruct.py    reconstruct
    darkslim/pruning/recalibrate.py    recalibrate
    darkslim/pruning/fuse.py           fuse, prove_fused
    darkslim/training/prunable.py      prunable_gammas: what sparsity training presses
    darkslim/training/penalties.py     L1, dose: sparsity while training
"""

from darkslim.network.channels import STRATEGIES, Channels
from darkslim.pruning.blocks import find as find_blocks
from darkslim.pruning.blocks import prove_removal
from darkslim.pruning.blocks import remove as remove_blocks
from darkslim.pruning.budget import Target
from darkslim.pruning.fuse import fuse, prove_fused
from darkslim.pruning.importance import SCORES, Context, Sparsity, sparsity
from darkslim.pruning.plan import PrunePlan, masked, plan
from darkslim.pruning.policy import SCORE_NAMES, class_scores
from darkslim.pruning.recalibrate import recalibrate
from darkslim.pruning.reconstruct import Reconstruction, reconstruct
from darkslim.pruning.surgery import apply
from darkslim.pruning.verify import Proof, fold_differences, prove, save_proven
from darkslim.training.penalties import L1, dose
from darkslim.training.prunable import prunable_gammas

__all__ = [
    "L1",
    "SCORES",
    "SCORE_NAMES",
    "STRATEGIES",
    "Channels",
    "Context",
    "Proof",
    "PrunePlan",
    "Reconstruction",
    "Sparsity",
    "Target",
    "apply",
    "class_scores",
    "dose",
    "find_blocks",
    "fold_differences",
    "fuse",
    "masked",
    "plan",
    "prove",
    "prove_fused",
    "prove_removal",
    "prunable_gammas",
    "recalibrate",
    "reconstruct",
    "remove_blocks",
    "save_proven",
    "sparsity",
]
