"""Keys of a cfg that steer Darknet's training and not this one: named once, with what takes their place."""

from __future__ import annotations

from ..network.cfg import Cfg

# key -> (values that ask for nothing, what to use instead; "" for nothing)
NET = {
    "adam": (("0",), ""),
    "policy": (("constant", "steps"), "--schedule"),
    "mixup": (("0",), ""),
    "cutmix": (("0",), ""),
    "blur": (("0",), ""),
    "gaussian_noise": (("0",), ""),
    "angle": (("0",), ""),
    "aspect": (("0", "1"), ""),
    "max_crop": (("0",), ""),
    "min_crop": (("0",), ""),
    "attention": (("0",), ""),
    "adversarial_lr": (("0",), ""),
    "contrastive": (("0",), ""),
    "unsupervised": (("0",), ""),
    "dynamic_minibatch": (("0",), ""),
    "ema_alpha": (("0",), "--ema"),
    "try_fix_nan": (("0",), ""),
    "weights_reject_freq": (("0",), ""),
    "badlabels_rejection_percentage": (("0",), ""),
    "num_sigmas_reject_badlabels": (("0",), ""),
    "equidistant_point": (("0",), ""),
    "sgdr_cycle": (("0",), "--schedule cosine"),
}
LAYER = {
    "stopbackward": (("0", "1"), "--freeze"),
    "train_only_bn": (("0",), ""),
    "dont_update": (("0",), ""),
    "burnin_update": (("0",), ""),
    "onlyforward": (("0",), ""),
    "dontload": (("0",), ""),
    "dontloadscales": (("0",), ""),
    "learning_rate": (("1",), ""),
    "clip": (("0",), "--clip"),
    "random": (("0",), "--multiscale_training"),
    "nms_kind": (("default", "greedynms"), "--nms_thres"),
    "beta_nms": (("0.6",), ""),
    "resize": (("1", "1.5"), ""),
    "counters_per_class": ((), ""),
    "max_delta": ((), ""),
    "map": (("0",), ""),
    "embedding_layer": (("999999",), ""),
}


def asked(cfg: Cfg) -> dict[str, tuple[str, int, str]]:
    """key=value that is not followed -> (where it stands first, how often, what to use instead)."""
    found: dict[str, tuple[str, int, str]] = {}
    for section, table in [(cfg.net, NET), *((layer, LAYER) for layer in cfg.layers)]:
        for key, (off, instead) in table.items():
            value = section.get(key)
            if value is None or _equal(value, off):
                continue
            name = f"{key}={value[:40]}"
            place, count, _ = found.get(name, (section.place_of(key), 0, ""))
            found[name] = (place, count + 1, instead)
    return found


def _equal(value: str, off: tuple[str, ...]) -> bool:
    if value in off:
        return True
    try:
        return float(value) in [float(v) for v in off]
    except ValueError:
        return False


def sentences(cfg: Cfg) -> list[str]:
    """One sentence for all of them; none where there are none."""
    said = [name + (f" (here: {instead})" if instead else "") for name, (_, _, instead) in asked(cfg).items()]
    if not said:
        return []
    more = f" and {len(said) - 10} more" if len(said) > 10 else ""
    return [f"keys of the cfg that this training does not follow: {', '.join(said[:10])}{more}"]
