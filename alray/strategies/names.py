"""What strategies are called elsewhere: other names of ours, and names of methods that are not here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

_OURS = {
    "active_ft": "ActiveFT activeft",
    "alfa_mix": "ALFA-Mix AlphaMix AlfaMix alfamix alpha_mix alpha_mix_sampling",
    "badge": "BADGE Badge BadgeSampling",
    "bald": "BALD BALDDropout GreedyBALD BayesianDisagreement mc_dropout_bald",
    "cdal": "CDAL",
    "cluster_margin": "ClusterMargin Cluster-Margin",
    "core_gcn": "CoreGCN",
    "coreset": "CoreSet core_set GreedyCoreset KCenterGreedy KCenterSampling k_center k_centre kcenter DIVERSITY",
    "deepfool": "DeepFool AdversarialDeepFool",
    "diverse": "DiverseMiniBatch dbal",
    "drop_query": "DropQuery dropquery dropout",
    "entropy": "Entropy EntropySampling PredictionEntropy entropy_sampling uncertainty_entropy",
    "isal": "ISAL",
    "kmeans": "KMeans KMeansSampling EmbeddingKMeans k_means k-means",
    "kmeans_pp": "KMeans++ kmeans++ k-means++",
    "learning_loss": "LearningLoss LossPredictionLoss LL4AL",
    "least_confidence": (
        "LeastConfidence LeastConfidenceSampling confidence least_confident uncertainty uncertainty_least_confidence "
        "uncertainty_sampling UncertaintySampling"
    ),
    "margin": "Margin MarginSampling BreakingTies MarginConfidence margin_sampling margins uncertainty_margin",
    "power_bald": "PowerBALD powerbald",
    "prob_cover": "ProbCover probcover",
    "random": "Random RandomSampling random_sampling",
    "typiclust": "TypiClust typicality",
    "uncertain_gcn": "UncertainGCN",
}

ALIASES: Mapping[str, str] = MappingProxyType(
    {alias: name for name, aliases in _OURS.items() for alias in aliases.split()}
)
"""Names that other libraries use for a strategy of ours."""

_ELSEWHERE = {
    "activelab get_active_learning_scores": (
        "least_confidence",
        "it too asks about the rows that the model is least sure of; several opinions on one row are not weighed",
    ),
    "adversarial_bim bim": ("deepfool", "it measures the way to the boundary too, with fewer steps"),
    "bait": ("badge", "it too spreads picks over gradients; bait's Fisher matrices have (C·D)² numbers a row"),
    "base": (
        "margin",
        "with `selection.quotas.predicted_class.at_most` it takes as many rows near the boundary of every class",
    ),
    "batch_bald batch_bald_dropout": (
        "power_bald",
        "it keeps a batch from being one question by drawing; the joint information of a batch grows as C^B",
    ),
    "ceal ceal_sampling": ("entropy", "it asks the same questions; training on the model's own guesses is not done"),
    "clue": ("diverse", "with `base: entropy` it clusters the uncertain rows; clue weighs them by their entropy"),
    "contrastive_al contrastive_active_learning cal": (
        "alfa_mix",
        "it too looks for rows beside labelled ones that are predicted otherwise",
    ),
    "direct galaxy": (
        "margin",
        "with `selection.quotas.predicted_class.at_least` it looks near the boundary and keeps rare classes in",
    ),
    "discriminative_al discriminative_active_learning dal vaal waal": (
        "coreset",
        "it too asks about rows that are unlike the labelled ones, and trains no second network for it",
    ),
    "epig variance mean_std mean_std_sampling mc_dropout_mean_st max_std_sampling var_ratio var_ratio_sampling "
    "mc_dropout_max_variation_ratios query_by_committee qbc vote_entropy_sampling consensus_entropy_sampling "
    "max_disagreement_sampling entropy_sampling_dropout margin_sampling_dropout least_confidence_dropout": (
        "bald",
        "it too asks where draws of the model disagree",
    ),
    "expected_error_reduction monte_carlo_eer glister": (
        "isal",
        "it too asks what would lower the loss on other rows, by influence and not by training again",
    ),
    "expected_gradient_length expected_model_change expected_model_change_maximization grad_match grad_match_active": (
        "badge",
        "it too goes by the gradient that a label would give",
    ),
    "falcun fass": ("diverse", "it too takes rows apart from each other among the uncertain ones"),
    "gibbs_sampling rank_based_sampling power_sampling": (
        "power_bald",
        "it too draws by the score in place of taking the best",
    ),
    "information_density density_weighted graph_density": (
        "typiclust",
        "it too prefers rows that have many like them",
    ),
    "lightweight_coreset": ("kmeans_pp", "it too draws rows by how far they are from what is there"),
    "max_herding submodular_sampling smi scg scmi": (
        "prob_cover",
        "it too covers the pool; its balls have an edge where a kernel fades",
    ),
    "ratio_confidence ratio_sampling": ("margin", "it takes the difference of the two best classes for their ratio"),
    "seals": ("margin", "all rows are scored in one pass here, so that no rows need to be left out"),
}

NOT_PROVIDED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {name: answer for names, answer in _ELSEWHERE.items() for name in names.split()}
)
"""Methods that are not here, in plain letters: the nearest that is, and why it is."""


def plain(name: str) -> str:
    """Return a name without capitals and signs: `Batch-BALD`, `batch_bald` and `BatchBALD` are one; `++` is `pp`."""
    return "".join(c for c in name.lower().replace("+", "p") if c.isalnum())


_PLAIN = {plain(name): answer for name, answer in NOT_PROVIDED.items()}


def unknown(name: str, known: Iterable[str]) -> str | None:
    """Return a sentence about a method that is not here; None where the name says nothing to us."""
    if plain(name) not in _PLAIN or name in known:
        return None
    nearest, why = _PLAIN[plain(name)]
    return f"`{name}` is not provided; the nearest is `{nearest}`, because {why}"


def hint(name: str, known: Iterable[str]) -> str:
    """Return the known name that was perhaps meant, found by its other names too, as a question; or nothing."""
    meant = {plain(k): k for k in known} | {plain(alias): ours for alias, ours in ALIASES.items()}
    close = difflib.get_close_matches(plain(name), meant, n=1, cutoff=0.6)
    return f" Did you mean `{meant[close[0]]}`?" if close else ""
