"""Break every formula once: the tests that check it have to turn red.

    python tests/benchmarks/mutations.py [--only P3,badge,ops/flips] [--jobs 2] [--out mutations.md]

Copies `alray` and the tests to a folder of their own, and demands that all tests named here are green there. Then one
mutation at a time is written into the copy: a wrong sign, a dropped factor, another index, of one formula. Prints a
Markdown table, and exits 1 if a mutation leaves its tests green, does not fit its file, ends otherwise than by a failed
test, or if a property, a strategy, an operation or a way of selection has none. Each mutation is a run of pytest of its
own, of about seven seconds on a free core.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).parents[2]
COPIED = ("alray", "tests", "pyproject.toml")

LIMIT = 900
"""Seconds of one run of pytest; a test that hangs is ended by pytest long before."""

VECTORS = {
    "V1": "ALFA-Mix's closed form, a hand example",
    "V2": "BADGE on three points",
    "V3": "greedy k-centre on a line",
    "V4": "least confidence, margin and entropy of five rows",
    "V5": "BALD of two passes",
    "V6": "LogME of six rows",
    "V7": "potential-energy descent of two classes",
    "V8": "paired t in both conventions",
    "V9": "the bill of three ways of labelling",
    "V10": "labels saved at an accuracy",
}
PROPERTIES = {
    "P1": "a mixture is moved by ε‖d‖ along the gradient",
    "P2": "candidates at a cap are candidates at every larger cap",
    "P3": "the farthest anchor alone decides",
    "P4": "one pass says what every cap and anchor, tried, says",
    "P5": "constants on logits, class order and rotations change no candidate",
    "P6": "two classes: the radius is the distance to the plane",
    "P7": "equal coordinates are frozen only with the switch",
    "P8": "anchors: class means, a fallback, in any order",
    "P9": "ALFA-Mix: exactly B distinct unlabelled rows, all of too few candidates",
    "P10": "k-means: one row a blob, the one nearest to the centroid",
    "P11": "learned α: at an end after a step, within its bounds",
    "P12": "the factorised distance is that of the gradients",
    "P13": "a gradient's length is that of its factors multiplied",
    "P14": "D² sampling: chances of the squared distance",
    "P15": "no row twice; as many as are distinct gives all",
    "P16": "no copy before all others were taken once",
    "P17": "a gradient does not depend on the batch",
    "P18": "greedy k-centre is the recomputation",
    "P19": "its radius is at most twice the best",
    "P20": "distances of successive picks do not rise",
    "P21": "the order of the pool does not matter",
    "P22": "0 ≤ mutual information ≤ min(ln C, ln M)",
    "P23": "without dropout all scores are 0",
    "P24": "batch norm's buffers stay as they are",
    "P25": "the evidence is the Gaussian density",
    "P26": "rotation and scale change nothing, shuffled labels score lower",
    "P27": "sums say what the rows say",
    "P28": "absent classes change nothing",
    "P29": "the moves of all classes cancel",
    "P30": "the scatter within a class stays",
    "P31": "sums move as the rows do",
    "P32": "without overlap nothing moves",
    "P33": "influence is what refitting does",
    "P34": "LiSSA: a damped solve; without curvature a geometric series",
    "P35": "the expected gradient over all classes is zero, and refused",
    "P36": "the top classes are minus the rest",
    "P37": "the last layer's formula is autograd",
    "P38": "Hessian products are differences of gradients",
    "P39": "adding the most helpful row lowers the reference loss",
    "P40": "the helpful rows come first",
    "P41": "identical methods do not win; no variance is not divided by",
}


class Mutation(NamedTuple):
    """A file of `alray/`, a text that is in it once, what takes its place, and tests of `tests/` that must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: str

    @property
    def nodes(self) -> list[str]:
        """The tests, as pytest names them."""
        return [f"tests/{node}" for node in self.tests.split()]

    @property
    def told(self) -> str:
        """The mutation in words and code, as one line."""
        return f"`{self.file}`: `{_line(self.old)}` → `{_line(self.new)}`"


M = Mutation
FLIPS, MIXING, ALPHAS = "ops/flips.py", "ops/mixing.py", "ops/alphas.py"
FRONT = "selection/diversity/front.py"
SEQUENTIAL, IN_SEQUENCE = "selection/diversity/test_sequential.py", "strategies/test_in_sequence.py"

# fmt: off
TABLE: Sequence[Mutation] = (
    # vectors and properties: ALFA-Mix
    M("V1", FLIPS, "math.sqrt(z_ND.shape[1]) * radius_N / farthest_N", "radius_N / farthest_N",
      "ops/test_flips.py::test_hand_example_critical_cap"),
    M("V1", MIXING, "return length_N / math.sqrt(d_ND.shape[1])", "return length_N",
      "ops/test_mixing.py::test_hand_example"),
    M("P1", FLIPS, "math.sqrt(z_ND.shape[1]) * radius_N / farthest_N", "z_ND.shape[1] * radius_N / farthest_N",
      "ops/test_flips.py::test_displacement_has_the_relative_length_and_the_gradients_direction"),
    M("P1", MIXING, "self.pre_NH[rows] + radius_N[:, None] * self._steps", "self.pre_NH[rows] + self._steps",
      "ops/test_mixing.py::test_a_displacement_has_the_relative_length_and_the_gradients_direction"),
    M("P1", MIXING, "length_N1 > 0, g_ND / length_N1, 0.0", "length_N1 > 0, -g_ND / length_N1, 0.0",
      "ops/test_mixing.py::test_a_displacement_has_the_relative_length_and_the_gradients_direction"),
    M("P2", MIXING, "radius_N = cap * self._reach", "radius_N = cap * (1 - cap) * self._reach",
      "ops/test_mixing.py::test_a_candidate_at_a_cap_is_one_at_every_larger_cap"),
    M("P3", FLIPS, "away_NC.max(dim=1)", "away_NC.min(dim=1)",
      "ops/test_flips.py::test_only_the_farthest_anchor_matters"),
    M("P4", FLIPS, "gap_NC / slope_NC", "slope_NC / gap_NC",
      "ops/test_flips.py::test_candidates_are_those_of_the_official_loop"),
    M("P4", FLIPS, "others_NC.softmax(dim=1) if", "others_NC.sigmoid() if",
      "ops/test_flips.py::test_caps_are_those_of_the_definition"),
    M("P5", FLIPS, "bias_C - bias_C.mean() +", "bias_C / bias_C.mean() +",
      "ops/test_flips.py::test_a_constant_on_all_logits_changes_nothing"),
    M("P5", FLIPS, "math.inf).min(dim=1).values", "math.inf)[:, -1]",
      "ops/test_flips.py::test_class_order_changes_nothing"),
    M("P5", FLIPS, "torch.linalg.vector_norm(z_ND, dim=1).square()", "z_ND.abs().sum(dim=1).square()",
      "ops/test_flips.py::test_a_rotation_changes_nothing"),
    M("P6", FLIPS, "slope_NC / square_N.sqrt()[:, None]", "slope_NC / square_N[:, None]",
      "ops/test_flips.py::test_two_classes_radius_is_the_distance_to_the_plane"),
    M("P7", FLIPS, "(u_ND * (d_ND / (d_ND + GUARD)))", "u_ND",
      "ops/test_flips.py::test_equal_coordinates_stay_only_with_the_switch"),
    M("P7", MIXING, "self.u_ND[rows] * (d_ND / (d_ND + flips.GUARD))", "self.u_ND[rows]",
      "strategies/test_alfa_mix.py::test_equal_coordinates_stay_below_an_mlp_head_only_with_the_switch"),
    M("P8", "ops/anchors.py", "sums_CH / count_C1.clamp_min(1)", "sums_CH",
      "ops/test_anchors.py::test_anchors_are_class_means_and_an_absent_class_has_the_mean_of_all"),
    M("P8", "ops/anchors.py", ", overall_1H)", ", 0 * overall_1H)",
      "ops/test_anchors.py::test_anchors_are_class_means_and_an_absent_class_has_the_mean_of_all"),
    M("P8", "ops/anchors.py", "sums_CH.index_add_(", "sums_CH.index_copy_(",
      "ops/test_anchors.py::test_the_order_of_the_rows_leaves_no_trace"),
    M("P9", "strategies/shortlist.py", "total > self.budget", "total >= self.budget",
      "strategies/test_shortlist.py::test_exactly_the_budget_is_not_enough"),
    M("P9", "selection/stages.py", "offers.fill(self.scan, missing, ids)", "offers.fill(self.scan, missing)",
      "strategies/test_alfa_mix.py::test_all_of_too_few_candidates_are_picked_and_the_rest_is_random"),
    M("P9", "selection/resident.py", "scan.excluded.mask(shard) | ~shard.ok_N", "~shard.ok_N",
      "selection/test_select.py::test_labelled_and_excluded_rows_are_not_picked"),
    M("P10", "selection/diversity/clusters.py", "squared_N = kmeans.distances(", "squared_N = -kmeans.distances(",
      "strategies/test_kmeans.py::test_p10_of_every_blob_the_row_nearest_to_its_mean"),
    M("P10", "selection/diversity/central.py",
      "kmeans.plus_plus(rows_ND, torch.ones(len(rows_ND)), self.clusters, generator)",
      "rows_ND[: self.clusters].float()", "selection/test_select.py::test_separate_blobs_give_one_pick_each"),
    M("P11", ALPHAS, "alpha_ND.clamp(LEAST, cap)", "alpha_ND.clamp(LEAST, 1.0)",
      "ops/test_alphas.py::test_weights_stay_in_their_bounds"),
    M("P11", ALPHAS, "adam = adam if how.keep else Adam(alpha_ND)", "adam = adam",
      "ops/test_alphas.py::test_every_weight_is_at_an_end_after_one_official_step"),
    # BADGE, CoreSet
    M("V2", FRONT, "return self.metric.own(rows_NG).cpu()", "return -self.metric.own(rows_NG).cpu()",
      f"{SEQUENTIAL}::test_v2_and_p14_the_second_pick_of_the_gradients_and_the_third_after_it"),
    M("P12", "ops/distances.py", "(a_NC @ a_KC.T) * (h_NH @ h_KH.T)", "(a_NC @ a_KC.T) + (h_NH @ h_KH.T)",
      "ops/test_distances.py::test_p12_the_factorised_distance_is_that_of_the_gradients"),
    M("P13", "ops/distances.py", "a_NC.square().sum(dim=1) * h_NH.square()", "a_NC.square().sum(dim=1) + h_NH.square()",
      "ops/test_distances.py::test_p13_a_gradient_is_as_long_as_its_factors_multiplied"),
    M("P14", "ops/race.py", "exponential_N / rate_N", "exponential_N / rate_N.sqrt()",
      "ops/test_race.py::test_p14_the_first_to_fire_by_its_share_of_the_rates"),
    M("P14", "ops/race.py", "(before_N / after_N)", "(before_N / after_N).sqrt()",
      "ops/test_race.py::test_the_next_to_fire_after_rates_have_fallen_by_its_share_of_the_new_rates"),
    M("P15", FRONT, "if not squared_n[at] > 0 or (", "if (",
      f"{SEQUENTIAL}::test_p15_as_many_as_there_are_distinct_rows_gives_each_once"),
    M("P16", FRONT, "squared_n = torch.minimum(squared_n, found_n)", "squared_n = squared_n",
      f"{SEQUENTIAL}::test_p16_no_row_twice_before_all_others_once"),
    M("P17", "ops/gradients.py", "return others_NC.scatter(", "return 1 / len(probs_NC) * others_NC.scatter(",
      "ops/test_gradients.py::test_p17_a_row_has_the_same_residual_beside_others_and_alone"),
    M("V3", "ops/farthest.py", "int(least_N.argmax())", "int(least_N.argmin())",
      "ops/test_farthest.py::test_v3_the_line_of_the_notes"),
    M("V3", FRONT, "at = int(merit_n.argmax())", "at = int(merit_n.argmin())", f"{SEQUENTIAL}::test_v3_on_a_line"),
    M("P18", "ops/farthest.py", "torch.minimum(least_N,", "torch.maximum(least_N,",
      "ops/test_farthest.py::test_agrees_with_measuring_everything_anew"),
    M("P18", FRONT, "squared_N[part] = torch.minimum(squared_N[part], squared_KN.amin(dim=0))",
      "squared_N[part] = squared_KN.amin(dim=0)",
      f"{SEQUENTIAL}::test_p18_k_centre_is_the_one_by_one_algorithm"),
    M("P19", FRONT, "at = int(merit_n.argmax())", "at = int(merit_n.argmin())",
      f"{SEQUENTIAL}::test_p19_the_radius_is_at_most_twice_the_best"),
    M("P20", FRONT, "squared_n = torch.minimum(squared_n, found_n)", "squared_n = found_n",
      f"{SEQUENTIAL}::test_p20_distances_of_successive_picks_do_not_rise"),
    M("P21", FRONT, "bound = min([self.bound, *keys])", "bound = self.bound",
      f"{SEQUENTIAL}::test_p18_k_centre_is_the_one_by_one_algorithm"),
    # uncertainty, BALD
    M("V4", "ops/probability.py", "return 1 - probs_NC.max(dim=1).values", "return 1 - probs_NC.mean(dim=1)",
      "ops/test_probability.py::test_hand_table"),
    M("V4", "ops/probability.py", "top_N2[:, 0] - top_N2[:, 1]", "top_N2[:, 0]",
      "ops/test_probability.py::test_hand_table"),
    M("V4", "ops/probability.py", "top_N2[:, 0] - top_N2[:, 1]", "probs_NC[:, 0] - probs_NC[:, 1]",
      "ops/test_probability.py::test_the_margin_looks_at_the_two_largest_wherever_they_are"),
    M("V4", "ops/probability.py", "torch.special.entr(probs_NC)", "torch.special.entr(probs_NC) / 0.693147",
      "ops/test_probability.py::test_hand_table"),
    M("V4", "ops/probability.py", "torch.special.entr(probs_NC)", "-probs_NC * probs_NC.log()",
      "ops/test_probability.py::test_entropy_runs_from_zero_to_ln_of_the_classes"),
    M("V5", "ops/disagreement.py", "entropy_N + (now_N - entropy_N) / count", "entropy_N + now_N",
      "ops/test_disagreement.py::test_v5_two_passes_by_hand"),
    M("P22", "ops/disagreement.py", "(probability.entropy(mean_NC) - entropy_N)",
      "(probability.entropy(mean_NC) + entropy_N)",
      "ops/test_disagreement.py::test_p22_mutual_information_lies_between_zero_and_the_logarithms"),
    M("P23", "ops/disagreement.py", "entropy_N + (now_N - entropy_N) / count",
      "(entropy_N * (count - 1) + now_N) / count",
      "ops/test_disagreement.py::test_p23_equal_draws_give_exactly_zero"),
    M("P24", "ops/dropout_layers.py", "    for draw in range(draws):",
      "    module.train()\n    for draw in range(draws):",
      "ops/test_dropout_layers.py::test_p24_batch_norm_stays_in_evaluation_and_its_buffers_as_they_are"),
    # LogME, PED
    M("V6", "ops/logme.py", "torch.log(beta_C / (2 * math.pi))", "torch.log(beta_C / math.pi)",
      "ops/test_logme.py::test_the_small_example_by_hand"),
    M("P25", "ops/logme.py", "torch.log1p(self.sigma_K / t_C[:, None])", "torch.log(self.sigma_K / t_C[:, None])",
      "ops/test_logme.py::test_the_evidence_is_the_gaussian_density_at_any_alpha_and_beta"),
    M("P25", "ops/logme.py", "- beta_C * misfit_C - spread_C", "- misfit_C - spread_C",
      "ops/test_logme.py::test_the_evidence_is_the_gaussian_density_at_any_alpha_and_beta"),
    M("P26", "ops/logme.py", "(moments.sum_CD @ basis_DK)", "moments.sum_CD[:, kept_D]",
      "ops/test_logme.py::test_rotation_changes_nothing"),
    M("P26", "ops/logme.py", "sigma_D > RANK * sigma_D[-1].clamp_min(0)", "sigma_D > RANK",
      "ops/test_logme.py::test_scale_changes_nothing"),
    M("P26", "ops/logme.py",
      "low, high = math.log(float(self.sigma_K[-1])) - 37, math.log(float(self.sigma_K[-1])) + 18",
      "low, high = -37.0, 18.0", "ops/test_logme.py::test_scale_changes_nothing"),
    M("P26", "ops/logme.py", "LogME(float(evidence_C.mean())", "LogME(-float(evidence_C.mean())",
      "ops/test_logme.py::test_shuffled_labels_score_lower"),
    M("P27", "ops/logme.py", "(total_C - x2_CK.sum(dim=1)).clamp_min(0)", "total_C",
      "ops/test_logme.py::test_moments_say_what_the_rows_own_svd_says"),
    M("P28", "ops/logme.py", "moments = moments.compact()", "moments = moments",
      "ops/test_logme.py::test_class_numbers_without_rows_change_nothing"),
    M("V7", "ops/ped.py", "min(0.5 * time**2 * pull, 1.0)", "min(time**2 * pull, 1.0)",
      "ops/test_ped.py::test_two_classes_by_hand"),
    M("P29", "ops/ped.py", "move_CC = force_CC * min(", "move_CC = radius_C * force_CC * min(",
      "ops/test_ped.py::test_what_pairs_move_cancels"),
    M("P30", "ops/ped.py", " + count_C1 * delta_CD.square()", "",
      "ops/test_ped.py::test_the_scatter_within_a_class_stays"),
    M("P31", "ops/ped.py", "cross_DD + cross_DD.T", "2 * cross_DD", "ops/test_ped.py::test_sums_move_as_the_rows_do"),
    M("P32", "ops/ped.py", "(nsigma * (radius_C[:, None] + radius_C) - distance_CC).clamp_min(0)",
      "nsigma * (radius_C[:, None] + radius_C) - distance_CC",
      "ops/test_ped.py::test_classes_that_do_not_overlap_stay"),
    # influence
    M("P33", "ops/last_layer.py", "self.probs_MC * (along_MC - mean_M1)", "self.probs_MC * along_MC",
      "ops/test_last_layer.py::test_p33_influence_is_what_refitting_does"),
    M("P34", "ops/lissa.py", "h = v + (1 - damp) * h -", "h = (1 - damp) * (v + h) -",
      "ops/test_lissa.py::test_p34_without_curvature_250_steps_give_91_9752"),
    M("P34", "ops/lissa.py", "- times_row(row, h) / scale", "- times_row(row, h) / scale**2",
      "ops/test_lissa.py::test_p34_where_it_converges_it_is_a_damped_solve"),
    M("P35", "ops/influence.py", "if top_k < classes or", "if top_k <= classes or",
      "ops/test_influence.py::test_p35_over_all_classes_it_is_zero_and_refused"),
    M("P36", "ops/influence.py", "gain_out_N - outside_NR.sum(dim=1) * gain_in_N",
      "gain_out_N + outside_NR.sum(dim=1) * gain_in_N",
      "ops/test_influence.py::test_p36_the_top_classes_are_minus_the_rest"),
    M("P37", "ops/influence.py", "along_NC = along_NC - along_NC[:, :1]", "along_NC = along_NC",
      "ops/test_influence.py::test_p37_the_formula_is_autograd"),
    M("P37", "ops/all_weights.py", "return found[0], found[1]", "return found[0], -found[1]",
      "ops/test_all_weights.py::test_p37_forward_mode_is_a_backward_pass_a_picture"),
    M("P38", "ops/last_layer.py", "ridge_H[-1] = self.damping", "ridge_H[-1] = self.l2 + self.damping",
      "ops/test_last_layer.py::test_p38_the_product_is_the_hessians"),
    M("P38", "ops/all_weights.py", "(weight * losses).sum()", "losses.sum()",
      "ops/test_all_weights.py::test_p38_gradient_and_hessian_are_differences"),
    M("P39", "ops/last_layer.py", "return found_CH / len(hidden_RH)", "return -found_CH / len(hidden_RH)",
      "ops/test_last_layer.py::test_p33_adding_a_row_moves_the_reference_loss_as_predicted"),
    M("P40", "strategies/isal.py", "return influence.benefit(", "return -influence.benefit(",
      "strategies/test_isal.py::test_p39_p40_the_score_is_the_fall_of_the_reference_loss_when_the_row_is_added"),
    # statistics and costs
    M("V8", "reports/significance.py", "values_S.std(ddof=ddof)", "values_S.std(ddof=1)",
      "reports/test_significance.py::test_v8_both_conventions"),
    M("V8", "reports/significance.py", "math.sqrt((count - 1) / count)", "math.sqrt(count / (count - 1))",
      "reports/test_significance.py::test_v8_both_conventions"),
    M("V9", "reports/savings.py", "self.label_dollars(prices) + self.compute_dollars(prices)",
      "self.label_dollars(prices)", "reports/test_savings.py::test_v9_the_papers_bill"),
    M("V10", "reports/savings.py", "return 1 - few / many", "return 1 - many / few",
      "reports/test_savings.py::test_v10_half_the_labels"),
    M("V10", "reports/curves.py", "(accuracy - low) / (high - low) *", "(high - accuracy) / (high - low) *",
      "reports/test_savings.py::test_the_equivalent_saving_by_hand"),
    M("P41", "reports/significance.py", "return 0.0 if values_S[0] == 0 else", "return 0.0 if values_S[0] >= 0 else",
      "reports/test_significance.py::test_p41_no_variance_is_not_divided_by"),
    M("P41", "reports/significance.py", "test.significant and test.t > 0", "test.t >= 0",
      "reports/test_significance.py::test_p41_identical_methods_never_win"),
    # strategies
    M("active_ft", "strategies/active_ft.py", "(self.temperature, self.balance,", "(self.balance, self.temperature,",
      "selection/diversity/test_finetuned.py::test_the_centroids_are_fitted_to_the_sample_and_labelled_rows_stay"),
    M("alfa_mix", "strategies/alfa_mix.py", "return -cap(hidden_NH,", "return cap(hidden_NH,",
      "strategies/test_alfa_mix.py::test_score_is_minus_the_cap_of_the_official_loop"),
    M("alfa_mix", "strategies/alfa_mix.py", "np.arange(len(given.classes)) if self.absent_class ==",
      "np.arange(len(given.classes)) if self.absent_class !=",
      "strategies/test_alfa_mix.py::test_a_class_far_from_all_rows_is_no_anchor_when_it_has_no_labels"),
    M("alfa_mix", "strategies/alfa_mix.py", "return -self.score(rows, prepared) if",
      "return self.score(rows, prepared) if",
      "strategies/test_alfa_mix.py::test_norm_of_the_closed_form_takes_the_least_caps"),
    M("alfa_mix", "strategies/shortlist.py", "count > kept else None", "count < kept else None",
      "selection/test_select.py::test_a_limited_shortlist_keeps_the_best_multiple_of_the_budget"),
    M("badge", "strategies/badge.py", "from_labelled=False, ", "",
      f"{IN_SEQUENCE}::test_badge_is_the_race_of_whole_gradients"),
    M("badge", "strategies/badge.py", 'residuals(rows["probs"])', 'rows["probs"]',
      f"{IN_SEQUENCE}::test_badge_is_the_race_of_whole_gradients"),
    M("bald", "strategies/bald.py", "logits_NC.softmax(dim=1)", "logits_NC.sigmoid()",
      "strategies/test_draws.py::test_bald_is_the_information_of_so_many_explicit_passes"),
    M("cdal", "strategies/cdal.py", 'KCentre("symmetric_kl", ', "KCentre(",
      f"{IN_SEQUENCE}::test_cdal_is_plain_greedy_by_the_mean_of_both_divergences"),
    M("cluster_margin", "strategies/cluster_margin.py", "return -probability.margin(", "return probability.margin(",
      "selection/diversity/test_round_robin.py::test_agrees_with_one_machine_and_the_clusters_of_scikit_learn"),
    M("cluster_margin", "strategies/cluster_margin.py", "All(most=int(self.multiple * budget))", "All()",
      "selection/diversity/test_round_robin.py::test_picks_are_among_the_smallest_margins_and_of_as_many_clusters"
      "_as_there_are"),
    M("core_gcn", "strategies/core_gcn.py", "farthest_first(hidden_SH, centres_LH,",
      "farthest_first(hidden_SH, hidden_SH[:1],",
      "strategies/test_gcn.py::test_core_gcn_goes_farthest_first_from_the_labelled_nodes"),
    M("coreset", "strategies/coreset.py", "KCentre(rounds", "KCentre(from_labelled=False, rounds",
      f"{IN_SEQUENCE}::test_coreset_is_plain_greedy"),
    M("deepfool", "strategies/deepfool.py", "return -boundary.distance(", "return boundary.distance(",
      "strategies/test_deepfool.py::test_the_score_is_minus_the_distance_in_the_last_layers_input"),
    M("deepfool", "strategies/deepfool.py", " * active_nH[:, None]", "",
      "strategies/test_deepfool.py::test_slopes_below_an_mlp_are_those_of_autograd"),
    M("diverse", "strategies/diverse.py", "All(most=math.ceil(self.multiple * budget))", "All()",
      "strategies/test_diverse.py::test_only_rows_that_the_base_nominates_are_picked"),
    M("drop_query", "strategies/drop_query.py", "mismatches(self.whole(rows, prepared), self.passes(rows, prepared))",
      "mismatches(next(self.passes(rows, prepared)), self.passes(rows, prepared))",
      "strategies/test_draws.py::test_drop_query_counts_the_passes_that_change_their_mind"),
    M("drop_query", "strategies/drop_query.py", "threshold = self.draws // 2 + 1", "threshold = self.draws // 2",
      "strategies/test_draws.py::test_the_threshold_falls_while_there_are_too_few_candidates"),
    M("drop_query", "strategies/drop_query.py", "np.ceil(self.multiple * budget)", "np.floor(self.multiple * budget)",
      "strategies/test_draws.py::test_drop_query_wants_so_many_candidates_a_pick"),
    M("entropy", "strategies/entropy.py", "return probability.entropy(", "return -probability.entropy(",
      "strategies/test_scores.py::test_the_least_certain_row_comes_first"),
    M("isal", "strategies/isal.py", "_of_last_layer(known, damping * known.count)", "_of_last_layer(known, damping)",
      "strategies/test_isal.py::test_damping_is_per_labelled_row"),
    M("isal", "strategies/isal.py", "return h / (self.lissa.scale * problem.rows)", "return h / self.lissa.scale",
      "strategies/test_isal.py::test_lissa_converges_to_a_damped_solve"),
    M("isal", "strategies/isal.py", "bent_P + (l2_P + damping) * s_P", "bent_P + damping * s_P",
      "selection/test_pictures.py::test_p37_scores_are_those_of_dense_matrices"),
    M("kmeans", "strategies/kmeans.py", "return diversity.KMeans()", "return diversity.Uniform()",
      "strategies/test_kmeans.py::test_picks_are_the_rows_nearest_to_centroids_that_no_lloyd_step_moves"),
    M("kmeans_pp", "strategies/kmeans_pp.py", 'unit_rows(rows["features"]).float()', 'rows["features"].float()',
      f"{IN_SEQUENCE}::test_kmeans_pp_is_the_race_of_unit_rows"),
    M("learning_loss", "strategies/learning_loss.py", "torch.where(fine_N, predicted_N,",
      "torch.where(fine_N, -predicted_N,",
      "strategies/test_learning_loss.py::test_rows_that_the_model_does_badly_on_come_first"),
    M("least_confidence", "strategies/least_confidence.py", "return probability.", "return -probability.",
      "strategies/test_scores.py::test_the_least_certain_row_comes_first"),
    M("margin", "strategies/margin.py", "return -probability.", "return probability.",
      "selection/test_select.py::test_margin_takes_the_rows_that_a_brute_force_takes"),
    M("power_bald", "strategies/power_bald.py", "self.beta * mi_N.log() + noise_N", "self.beta * mi_N + noise_N",
      "strategies/test_draws.py::test_power_bald_takes_rows_with_chances_of_their_information_to_the_power_beta"),
    M("prob_cover", "strategies/prob_cover.py",
      'coverage.near(units_ND, kmeans.unit_rows(known["features"]), radius) if known is not None else None', "None",
      "strategies/test_prob_cover.py::test_picks_are_those_of_a_loop_that_counts_everything_anew"),
    M("prob_cover", "strategies/prob_cover.py", "self.classes or len(given.classes) or 10", "10",
      "strategies/test_prob_cover.py::test_the_radius_follows_the_classes_of_the_pseudo_labels"),
    M("random", "strategies/random.py", "-seeds.uniform(", "seeds.uniform(",
      "strategies/test_scores.py::test_random_tells_its_first_rows_apart"),
    M("typiclust", "strategies/typiclust.py", "self.neighbours, self.small,", "self.small, self.neighbours,",
      "selection/diversity/test_typical.py::test_agrees_with_one_machine_that_holds_all_rows"),
    M("uncertain_gcn", "strategies/kinds/graph.py", ">= len(units_SD)", "< len(units_SD)",
      "strategies/test_gcn.py::test_the_score_is_how_near_a_row_is_to_a_tenth"),
    M("uncertain_gcn", "strategies/uncertain_gcn.py", "-(score_S - self.margin).abs()", "-score_S.abs()",
      "strategies/test_gcn.py::test_the_score_is_how_near_a_row_is_to_a_tenth"),
    # operations
    M("ops/active_ft", "ops/active_ft.py", " + math.log(recipe.balance)", "",
      "ops/test_active_ft.py::test_the_loss_and_its_gradient"),
    M("ops/active_ft", "ops/active_ft.py", "all_MD @ block_bD.T / recipe.temperature", "all_MD @ block_bD.T",
      "ops/test_active_ft.py::test_three_steps_are_those_of_adam_by_hand"),
    M("ops/affine", "ops/affine.py", "weight_CD.T, alpha=scale)", "weight_CD.T)",
      "ops/test_affine.py::test_it_is_the_affine_map"),
    M("ops/affine", "ops/affine.py", "more = -len(x_ND) % TILE", "more = 0",
      "ops/test_affine.py::test_any_cut_of_the_rows_gives_the_same_bits"),
    M("ops/all_weights", "ops/all_weights.py", "(slope - (p * slope).sum(dim=1, keepdim=True))", "slope",
      "ops/test_all_weights.py::test_gauss_newton_is_its_definition"),
    M("ops/alphas", ALPHAS, "cap / 2 + cap / 2 * normal_ND", "cap / 2 + cap * normal_ND",
      "ops/test_alphas.py::test_random_weights_are_normal_and_clamped"),
    M("ops/alphas", ALPHAS, "(alpha_ND / norm_N1) - slope_ND", "(alpha_ND / norm_N1) + slope_ND",
      "ops/test_alphas.py::test_a_row_is_learned_as_torch_learns_it_alone"),
    M("ops/alphas", ALPHAS, "how.l2 * (alpha_ND / norm_N1)", "2 * how.l2 * alpha_ND",
      "ops/test_alphas.py::test_a_row_is_learned_as_torch_learns_it_alone"),
    M("ops/alphas", ALPHAS, "step < self.steps * 2 / 3", "step < self.steps / 2",
      "ops/test_alphas.py::test_the_rate_falls_after_two_thirds_of_the_steps"),
    M("ops/alphas", ALPHAS, "self.square / (1 - BETAS[1] ** self.taken)", "self.square / (1 - BETAS[1])",
      "ops/test_alphas.py::test_a_row_is_learned_as_torch_learns_it_alone"),
    M("ops/anchors", "ops/anchors.py", "overall_1H = hidden_MH.double().mean(dim=0, keepdim=True)",
      "overall_1H = (sums_CH / count_C1.clamp_min(1)).mean(dim=0, keepdim=True)",
      "ops/test_anchors.py::test_anchors_are_class_means_and_an_absent_class_has_the_mean_of_all"),
    M("ops/boundary", "ops/boundary.py", "gap_NC / apart_NC", "gap_NC / apart_NC.square()",
      "ops/test_boundary.py::test_the_closed_form_is_what_a_search_finds"),
    M("ops/boundary", "ops/boundary.py", "scale_n = length_n / steep_nK", "scale_n = length_n * steep_nK",
      "ops/test_boundary.py::test_the_walk_is_the_closed_form_under_an_affine_head"),
    M("ops/boundary", "ops/boundary.py", "label_N == classes - 1, classes - 2, classes - 1",
      "label_N == 0, classes - 2, classes - 1",
      "ops/test_boundary.py::test_the_bug_of_the_repositories_looks_at_the_last_class_only"),
    M("ops/conjugate_gradients", "ops/conjugate_gradients.py", "(rho / before) * direction",
      "(before / rho) * direction",
      "ops/test_conjugate_gradients.py::test_it_solves"),
    M("ops/coverage", "ops/coverage.py", "open_W &= ~bits_NW[row]", "open_W ^= bits_NW[row]",
      "ops/test_coverage.py::test_lazy_greedy_is_the_greedy_that_counts_everything_anew"),
    M("ops/coverage", "ops/coverage.py", "other_N >= middle**2", "other_N >= middle",
      "ops/test_coverage.py::test_the_pure_radius_is_the_largest_of_all_sixty_fourths"),
    M("ops/coverage", "ops/coverage.py", "others_MD) < radius**2", "others_MD) < radius",
      "ops/test_coverage.py::test_lazy_greedy_is_the_greedy_that_counts_everything_anew"),
    M("ops/coverage", "ops/coverage.py", "units_ND) < radius**2", "units_ND) <= radius**2",
      "ops/test_coverage.py::test_at_the_radius_a_row_is_not_covered"),
    M("ops/disagreement", "ops/disagreement.py", "(drawn_NC.argmax(dim=1) != label_N)",
      "(drawn_NC.argmax(dim=1) == label_N)",
      "ops/test_disagreement.py::test_mismatches_count_the_draws_that_name_another_class"),
    M("ops/distances", "ops/distances.py", "(probs_NC * log_NC).sum(dim=1) / 2", "(probs_NC * log_NC).sum(dim=1)",
      "ops/test_distances.py::test_squared_distances_by_their_definitions"),
    M("ops/distances", "ops/distances.py", "both_NK - 2 * self.cross", "both_NK - self.cross",
      "ops/test_distances.py::test_squared_distances_by_their_definitions"),
    M("ops/distances", "ops/distances.py", "EXACT_BITS - math.ceil(math.log2(width))) // 2", "EXACT_BITS - width) // 2",
      "ops/test_distances.py::test_the_grid_is_fine"),
    M("ops/dropout", "ops/dropout.py", "np.float32(1 - rate)", "np.float32(rate)",
      "ops/test_dropout.py::test_masks_are_zero_or_what_keeps_the_mean"),
    M("ops/dropout", "ops/dropout.py", "block_BP[:, None, :] * weight_CP", "block_BP[:1, None, :] * weight_CP",
      "ops/test_dropout.py::test_logits_are_those_of_one_pass_a_draw"),
    M("ops/dropout_layers", "ops/dropout_layers.py", "scale = 1 / (1 - self.rate) if", "scale = 1.0 if",
      "ops/test_dropout_layers.py::test_passes_are_those_with_masks_by_hand"),
    M("ops/farthest", "ops/farthest.py", "np.sqrt(np.array(squared))", "np.array(squared)",
      "ops/test_farthest.py::test_v3_the_line_of_the_notes"),
    M("ops/flips", FLIPS, "v_NC.scatter_(1, label_N1, -1.0)", "v_NC.scatter_(1, label_N1, 0.0)",
      "ops/test_flips.py::test_direction_is_the_gradient_by_central_differences"),
    M("ops/flips", FLIPS, "return NOISE * torch.finfo", "return 0 * torch.finfo",
      "ops/test_flips.py::test_classes_that_are_equal_never_overtake_each_other"),
    M("ops/gcn", "ops/gcn.py", " - self._own_N1 * values_NK", "",
      "ops/test_gcn.py::test_products_with_the_graph_are_those_of_the_dense_matrix"),
    M("ops/gcn", "ops/gcn.py", "1 / degree_N1, 0.0)", "1 / degree_N1.sqrt(), 0.0)",
      "ops/test_gcn.py::test_products_with_the_graph_are_those_of_the_dense_matrix"),
    M("ops/gcn", "ops/gcn.py", "- weight * logsigmoid(-logit_N[~labelled_N])",
      "- weight * logsigmoid(logit_N[~labelled_N])",
      "ops/test_gcn.py::test_the_loss_weighs_the_means_of_both_kinds"),
    M("ops/gcn", "ops/gcn.py", " * kept_NH / (1 - recipe.dropout)", " * kept_NH",
      "ops/test_gcn.py::test_training_is_adam_by_hand"),
    M("ops/gradients", "ops/gradients.py", "-affine(others_NC", "affine(others_NC",
      "ops/test_gradients.py::test_residuals_and_features_are_the_factors_of_the_gradient_by_the_last_weights"),
    M("ops/gumbel", "ops/gumbel.py", "np.asarray(-np.log(", "np.asarray(np.log(",
      "ops/test_gumbel.py::test_the_highest_of_scores_and_noise_win_by_their_chances"),
    M("ops/influence", "ops/influence.py", "* (along_NC - own_N1)", "* along_NC",
      "ops/test_influence.py::test_of_label_is_autograd_with_that_label"),
    M("ops/influence", "ops/influence.py", "- torch.nn.functional.one_hot", "+ torch.nn.functional.one_hot",
      "ops/test_influence.py::test_the_slope_of_a_loss_by_its_logits"),
    M("ops/kmeans", "ops/kmeans.py", "scale=-2.0", "scale=-1.0",
      "ops/test_kmeans.py::test_nearest_is_the_brute_forces"),
    M("ops/kmeans", "ops/kmeans.py", "mass_N = weight_N * least_N", "mass_N = weight_N * least_N.sqrt()",
      "ops/test_kmeans.py::test_plus_plus_draws_by_squared_distance"),
    M("ops/kmeans", "ops/kmeans.py", "weight_K1 > 0, sums_KD / weight_K1.clamp_min(1e-300)",
      "weight_K1 > 1, sums_KD / (weight_K1 - 1)",
      "ops/test_kmeans.py::test_lloyd_is_the_brute_forces_and_never_raises_the_inertia"),
    M("ops/kmeans", "ops/kmeans.py", "points_ND.double() * weight_N[:, None]", "points_ND.double()",
      "ops/test_kmeans.py::test_weights_stand_for_repeated_rows"),
    M("ops/last_layer", "ops/last_layer.py", "weight_M[row : row + 1], self.l2 / len(self.with_one_MH)",
      "weight_M[row : row + 1], self.l2",
      "ops/test_last_layer.py::test_the_rows_products_add_up_to_the_whole"),
    M("ops/learning_curve", "ops/learning_curve.py", "-b_S[:, None] * (log_n_P - log_last)",
      "b_S[:, None] * (log_n_P - log_last)", "ops/test_learning_curve.py::test_a_power_law_that_is_seen_well_is_found"),
    M("ops/learning_curve", "ops/learning_curve.py", " + slope_S.square() * self.variance_S", "",
      "ops/test_learning_curve.py::test_the_closed_form_is_a_gaussian_with_a_very_wide_prior"),
    M("ops/learning_curve", "ops/learning_curve.py", "tails = ((1 - level) / 2, 0.5,", "tails = (1 - level, 0.5,",
      "ops/test_learning_curve.py::test_an_interval_is_that_of_draws_from_the_mixture"),
    M("ops/learning_curve", "ops/learning_curve.py", "shared * torch.minimum(variance_P[:, None], variance_P)",
      "shared * torch.maximum(variance_P[:, None], variance_P)",
      "ops/test_learning_curve.py::test_the_closed_form_is_a_gaussian_with_a_very_wide_prior"),
    M("ops/learning_curve", "ops/learning_curve.py", "+ variance_S.log() - misses_S", "- misses_S",
      "ops/test_learning_curve.py::test_the_closed_form_is_a_gaussian_with_a_very_wide_prior"),
    M("ops/learning_curve", "ops/learning_curve.py", "-0.5 * ((b_S - exponent[0])", "0.5 * ((b_S - exponent[0])",
      "ops/test_learning_curve.py::test_a_known_exponent_is_believed"),
    M("ops/learning_curve", "ops/learning_curve.py", "self._chance(1 - accuracy,", "self._chance(accuracy,",
      "ops/test_learning_curve.py::test_labels_for_an_accuracy_are_where_the_intervals_meet_it"),
    M("ops/linkage", "ops/linkage.py", "(weight_M[one] * gap_MM[one] + weight_M[other] * gap_MM[other]) / total",
      "(gap_MM[one] + gap_MM[other]) / 2", "ops/test_linkage.py::test_as_many_clusters_as_scikit_learn_finds"),
    M("ops/linkage", "ops/linkage.py", "weight_M[other], weight_M[one] = total, 0.0", "weight_M[one] = 0.0",
      "ops/test_linkage.py::test_as_many_clusters_as_scikit_learn_finds"),
    M("ops/lissa", "ops/lissa.py", "[(start + t) % rows for t in range(depth)]", "[t % rows for t in range(depth)]",
      "ops/test_lissa.py::test_rows_are_taken_in_order_each_repetition_where_the_last_one_stopped"),
    M("ops/logme", "ops/logme.py", "return t_C * beta_C, beta_C", "return t_C / beta_C, beta_C",
      "ops/test_logme.py::test_the_small_example_by_hand"),
    M("ops/logme", "ops/logme.py", "float(moments.gram_DD.trace()) / moments.rows", "float(moments.gram_DD.trace())",
      "ops/test_logme.py::test_moments_say_what_the_rows_own_svd_says"),
    M("ops/logme", "ops/logme.py", "return self.rows / torch.maximum(misfit_C, LEAST * self.total_C)",
      "return self.rows / misfit_C", "ops/test_logme.py::test_a_perfect_fit_has_a_finite_score_and_the_best_one"),
    M("ops/loss_ranking", "ops/loss_ranking.py", "(margin - sign_P *", "(margin + sign_P *",
      "ops/test_loss_ranking.py::test_the_ranking_loss_by_hand"),
    M("ops/loss_ranking", "ops/loss_ranking.py", "            falling.step()\n", "",
      "ops/test_loss_ranking.py::test_training_is_adam_with_decay_by_hand"),
    M("ops/loss_ranking", "ops/loss_ranking.py", "(bias - weight @ centre_P.double())", "bias",
      "ops/test_loss_ranking.py::test_training_is_adam_with_decay_by_hand"),
    M("ops/loss_ranking", "ops/loss_ranking.py", "size**-0.5", "size**-1.0",
      "ops/test_loss_ranking.py::test_training_is_adam_with_decay_by_hand"),
    M("ops/mixing", MIXING, "return ups_NC + downs_NC.gather(1, label_N[:, None])", "return ups_NC",
      "ops/test_mixing.py::test_no_move_gains_more_than_the_steepest"),
    M("ops/mixing", MIXING, "(trial.key_N < key_N[rows])", "(trial.key_N <= trial.key_N)",
      "ops/test_mixing.py::test_the_first_cap_counts_and_at_it_the_least_key"),
    M("ops/mixing", MIXING, "self.above_CH.T, torch.zeros_like(self.above_CH[0])) * (pre_NH > 0)",
      "self.above_CH.T, torch.zeros_like(self.above_CH[0]))",
      "ops/test_mixing.py::test_gradients_are_those_of_autograd"),
    M("ops/moments", "ops/moments.py", "target_N, rows_ND.square())", "target_N, rows_ND)",
      "ops/test_moments.py::test_moments_are_the_sums_of_the_rows"),
    M("ops/moments", "ops/moments.py", " - self.mean_D.square()", "",
      "ops/test_moments.py::test_coordinates_are_those_of_all_rows_together"),
    M("ops/ped", "ops/ped.py", "if length <= stop * first:", "if length <= 0:",
      "ops/test_ped.py::test_no_step_moves_less_than_a_share_of_the_first"),
    M("ops/ped", "ops/ped.py", "(mean_CD - coordinates.mean_D) / std_D", "mean_CD - coordinates.mean_D",
      "ops/test_ped.py::test_sums_move_as_the_rows_do"),
    M("ops/ped", "ops/ped.py", "(variance_CD / std_D.square()).sum(dim=1).sqrt()",
      "(variance_CD / std_D.square()).mean(dim=1).sqrt()",
      "ops/test_ped.py::test_sums_move_as_the_rows_do"),
    M("ops/probability", "ops/probability.py", "parts_NC.sum(dim=1).clamp_min(0) / 2",
      "parts_NC.sum(dim=1).clamp_min(0)",
      "ops/test_probability.py::test_symmetric_kl_is_the_mean_of_both_divergences"),
    M("ops/race", "ops/race.py", "torch.where(after_N < before_N, later_N, due_N)", "later_N",
      "ops/test_race.py::test_times_never_get_earlier_and_stay_in_every_bit_where_rates_do"),
    M("ops/turns", "ops/turns.py", "size_G[order_G] > turn", "size_G[order_G] >= turn",
      "ops/test_turns.py::test_groups_give_in_turns_until_they_are_empty"),
    M("ops/typicality", "ops/typicality.py", "(rows - taken) // 2", "rows - taken",
      "ops/test_typicality.py::test_the_most_typical_rows_are_those_of_a_plain_search"),
    M("ops/turns", "ops/turns.py", "place_n[order] = np.arange(len(group_n)) - ",
      "place_n[order] = np.arange(len(group_n)) + 0 * ",
      "ops/test_turns.py::test_a_row_knows_its_place_in_its_group"),
    M("ops/typicality", "ops/typicality.py", "1 / (mean_N + FLOOR)", "mean_N + FLOOR",
      "ops/test_typicality.py::test_a_hand_example"),
    M("ops/unit_distances", "ops/unit_distances.py", "- 2 * (x_ND @ y_MD.T)", "- (x_ND @ y_MD.T)",
      "ops/test_unit_distances.py::test_every_distance_is_the_exact_one"),
    # ways of selection
    M("diversity/by_kmeans", "selection/diversity/by_kmeans.py", "found.count * clusters * size <=",
      "found.count * size <=", "selection/test_select.py::test_auto_goes_by_bytes_work_and_shards"),
    M("diversity/by_points", "selection/diversity/by_points.py", "-self.points_n))[:count]", "self.points_n))[:count]",
      "selection/diversity/test_by_points.py"),
    M("diversity/candidates", "selection/diversity/candidates.py",
      "(self.given.bought if before else None, self.taken)", "(self.given.labelled if before else None, self.taken)",
      "strategies/test_bought.py::test_coreset_buys_nothing_beside_a_row_that_is_held_out"),
    M("diversity/central", "selection/diversity/central.py",
      "return kmeans.lloyd(rows_ND, start_KD, iterations=ITERATIONS)[0]", "return start_KD",
      "strategies/test_kmeans.py::test_picks_are_the_rows_nearest_to_centroids_that_no_lloyd_step_moves"),
    M("diversity/clusters", "selection/diversity/clusters.py", "inertia = float(squared_N.sum())",
      "inertia = float(squared_N.sqrt().sum())",
      "strategies/test_kmeans.py::test_picks_are_the_rows_nearest_to_centroids_that_no_lloyd_step_moves"),
    M("diversity/clusters", "selection/diversity/clusters.py", "        count_K += more_K\n", "",
      "strategies/test_kmeans.py::test_p10_of_every_blob_the_row_nearest_to_its_mean"),
    M("diversity/clusters", "selection/diversity/clusters.py", "-first.count_K[more.label_n], turns))[:missing]",
      "first.count_K[more.label_n], turns))[:missing]",
      "strategies/test_kmeans.py::test_what_empty_clusters_leave_is_given_in_turns_by_the_largest_first"),
    M("diversity/coreset", "selection/diversity/coreset.py", "count_K[full].double().numpy()",
      "np.ones(int(full.sum()))",
      "selection/diversity/test_coreset.py::test_the_root_weighs_a_centre_by_the_rows_it_stands_for"),
    M("diversity/coreset", "selection/diversity/coreset.py", "count + 6 * math.sqrt(count) + 6",
      "count - 6 * math.sqrt(count)",
      "selection/diversity/test_coreset.py::test_a_block_of_many_shards_gathers_little_more_than_its_sample"),
    M("diversity/coreset", "selection/diversity/coreset.py", "passes=REFINES)", "passes=0)",
      "selection/diversity/test_coreset.py::test_exact_passes_after_the_root_lower_the_inertia"),
    M("diversity/coreset", "selection/diversity/coreset.py", "share = OVERSAMPLING * clusters /", "share = clusters /",
      "selection/diversity/test_coreset.py::test_a_block_of_many_shards_gathers_little_more_than_its_sample"),
    M("diversity/finetuned", "selection/diversity/finetuned.py", "-similarity_Km.double()", "similarity_Km.double()",
      "selection/diversity/test_finetuned.py::test_agrees_with_one_machine"),
    M("diversity/finetuned", "selection/diversity/finetuned.py", "units_SD[:count], fixed_LD, recipe)",
      "units_SD[:count], fixed_LD[:0], recipe)",
      "selection/diversity/test_finetuned.py::test_the_centroids_are_fitted_to_the_sample_and_labelled_rows_stay"),
    M("diversity/front", FRONT, "due_N = race.delayed(due_N, squared_N, found_N, now)",
      "due_N = race.delayed(due_N, found_N, squared_N, now)", f"{SEQUENTIAL}::test_d_squared_is_the_one_by_one_race"),
    M("diversity/points", "selection/diversity/points.py", "scan.points(features_ND) if said_NP is None else said_NP",
      "scan.points(features_ND)", f"{IN_SEQUENCE}::test_badge_is_the_race_of_whole_gradients"),
    M("diversity/round_robin", "selection/diversity/round_robin.py", "np.lexsort((cluster_n, size_n, place_n))",
      "np.lexsort((cluster_n, -size_n, place_n))", "selection/diversity/test_round_robin.py::test_turns_by_hand"),
    M("diversity/round_robin", "selection/diversity/round_robin.py", "_linked, centroids_MD, size_M, way",
      "_linked, centroids_MD, np.ones_like(size_M), way",
      "selection/diversity/test_round_robin.py::test_micro_clusters_are_linked_as_the_rows_that_they_stand_for"),
    M("diversity/sequential", "selection/diversity/sequential.py", "[rule.metric.length(s) for s in picked.squared_K]",
      "picked.squared_K", f"{IN_SEQUENCE}::test_coreset_is_plain_greedy"),
    M("diversity/two_round", "selection/diversity/two_round.py", "nearest.values < before_n[part]",
      "nearest.values <= nearest.values",
      "selection/diversity/test_two_round.py::test_a_pick_stands_for_the_rows_that_it_is_the_nearest_to"),
    M("diversity/two_round", FRONT, "squared_N if weight_N is None else squared_N * weight_N", "squared_N",
      "selection/diversity/test_two_round.py::test_a_row_that_stands_for_many_fires_as_often_as_they_would"),
    M("diversity/typical", "selection/diversity/typical.py", "np.lexsort((np.arange(len(all_K)), -all_K, labelled_K))",
      "np.lexsort((np.arange(len(all_K)), labelled_K, -all_K))",
      "selection/diversity/test_typical.py::test_the_order_of_clusters_by_hand"),
    M("diversity/typical", "selection/diversity/typical.py", "order_K[all_K[order_K] > small]",
      "order_K[all_K[order_K] >= small]",
      "selection/diversity/test_typical.py::test_the_order_of_clusters_by_hand"),
    M("diversity/typical", "selection/diversity/typical.py", "all_K = size_K + labelled_K", "all_K = size_K",
      "selection/diversity/test_typical.py::test_the_order_of_clusters_by_hand"),
    M("at_random", "selection/shortlisted.py", "order = np.lexsort((ids.astype(str), -numbers))",
      "order = np.lexsort((ids.astype(str), numbers))",
      "selection/test_at_random.py::test_uniform_and_fill_take_the_rows_that_drew_the_highest_numbers"),
    M("at_random", "selection/at_random.py", "np.lexsort((self.ids.astype(str), -self.numbers))",
      "np.lexsort((self.ids.astype(str), self.numbers))",
      "selection/test_at_random.py::test_a_sample_is_drawn_among_all_that_may_be_picked"),
    M("quotas", "selection/quotas.py", "self.picked[column][value] < most", "self.picked[column][value] <= most",
      "selection/test_quotas.py::test_scores_under_quotas_are_one_walk_down_the_ranking"),
    M("quotas", "selection/quotas.py", "self.quotas[column].least(value) - self.picked[column][value])",
      "self.quotas[column].least(value) - self.picked[column][value] - 1)",
      "selection/test_quotas.py::test_scores_under_quotas_are_one_walk_down_the_ranking"),
    M("near_duplicates", "selection/near_duplicates.py", "< 2 * self.least", "< self.least",
      "selection/test_near_duplicates.py::test_the_distance_is_the_cosine_distance"),
    M("near_duplicates", "selection/near_duplicates.py", "self._near_N |= self._near_NN[row]",
      "self._near_N = self._near_NN[row]",
      "selection/test_near_duplicates.py::test_scores_are_one_walk_down_the_ranking"),
)
# fmt: on


class Verdict(NamedTuple):
    """What a mutation did to its tests: `red`, `green`, or what else happened; and in how many seconds."""

    said: str
    seconds: float

    @property
    def red(self) -> bool:
        """Whether a test has failed, as it has to."""
        return self.said.startswith("red")


def main() -> int:
    """Run the mutations and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="names with commas between, such as P3,badge,ops/flips")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file of the table; else it is printed only")
    given = parser.parse_args()
    names = given.only.split(",") if given.only else None
    if unknown := set(names or ()) - {one.name for one in TABLE}:
        parser.error(f"no mutation is called {', '.join(sorted(unknown))}")
    chosen = [one for one in TABLE if names is None or one.name in names]
    wrong = [f"{one.name} fits {n} times, expected once: {one.told}" for one in chosen if (n := fits(one)) != 1]
    wrong += [f"{name} has no mutation" for name in lacking()] if names is None else []
    for sentence in wrong:
        print(sentence, flush=True)
    with copies(given.jobs) as roots:
        told = unbroken(roots[0], chosen)
        if told:
            print(told, "The tests are red before anything is broken.", sep="\n")
            return 1
        verdicts = run(chosen, roots)
    table = markdown(chosen, verdicts)
    print(table)
    if given.out:
        given.out.write_text(table + "\n")
    return int(bool(wrong) or not all(verdict.red for verdict in verdicts))


def fits(one: Mutation, root: Path = HOME) -> int:
    """Return how often the text of a mutation is in its file: once, if it fits."""
    path = root / "alray" / one.file
    return path.read_text().count(one.old) if path.is_file() else 0


def lacking() -> list[str]:
    """Return what has no mutation: vectors, properties, strategies, operations and ways of selection."""
    from alray.strategies import STRATEGIES

    ways = {f"diversity/{name}" for name in _modules("selection/diversity") if name != "diversify"}
    wanted = {*VECTORS, *PROPERTIES, *STRATEGIES(), *(f"ops/{name}" for name in _modules("ops")), *ways}
    return sorted((wanted | {"quotas", "near_duplicates", "at_random"}) - {one.name for one in TABLE})


def _modules(folder: str) -> set[str]:
    return {path.stem for path in (HOME / "alray" / folder).glob("*.py")} - {"__init__"}


@contextmanager
def copies(count: int) -> Iterator[list[Path]]:
    """Make copies of the checkout, one for each job, until the block ends."""
    with ExitStack() as stack:
        roots = []
        for _ in range(count):
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="alray-mutations-")))
            for name in COPIED:
                part = HOME / name
                if part.is_dir():
                    shutil.copytree(part, root / name, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy2(part, root / name)
            imported = python(root, ["-c", "import alray; print(alray.__file__)"]).stdout.strip()
            assert Path(imported).resolve() == (root / "alray" / "__init__.py").resolve(), imported
            roots.append(root)
        yield roots


def python(root: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run Python in a copy, whose alray it imports; no byte code is kept, which could be that of another text."""
    setting = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=root, env=setting, capture_output=True, text=True, timeout=LIMIT, check=False)


def pytest(root: Path, nodes: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run some tests of a copy, up to the first that fails."""
    return python(root, ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--tb=line", *nodes])


def unbroken(root: Path, chosen: Sequence[Mutation]) -> str:
    """Return what pytest says of all tests before anything is broken, or nothing where they are green."""
    nodes = dict.fromkeys(node for one in chosen for node in one.nodes)
    done = pytest(root, list(nodes))
    print(f"{len(nodes)} tests unbroken: {_last(done.stdout)}", flush=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def run(chosen: Sequence[Mutation], roots: Sequence[Path]) -> list[Verdict]:
    """Return the verdict of each mutation, as many at once as there are copies."""
    free: queue.Queue[Path] = queue.Queue()
    for root in roots:
        free.put(root)

    def one_by_one(one: Mutation) -> Verdict:
        root = free.get()
        try:
            verdict = judge(root, one)
        finally:
            free.put(root)
        print(f"{verdict.seconds:6.1f} s  {one.name:<28} {verdict.said}", flush=True)
        return verdict

    with ThreadPoolExecutor(len(roots)) as pool:
        return list(pool.map(one_by_one, chosen))


def judge(root: Path, one: Mutation) -> Verdict:
    """Break a copy, run the tests, and mend it."""
    if fits(one, root) != 1:
        return Verdict("**does not fit its file**", 0.0)
    path = root / "alray" / one.file
    before, start = path.read_text(), time.monotonic()
    path.write_text(before.replace(one.old, one.new))
    try:
        done = pytest(root, one.nodes)
    except subprocess.TimeoutExpired:
        return Verdict(f"no end in {LIMIT} s", time.monotonic() - start)
    finally:
        path.write_text(before)
    return Verdict(said(done), time.monotonic() - start)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a run of pytest says of a mutation: a test that failed is what is wanted, and nothing else."""
    if done.returncode == 0:
        return "**green**"
    failed = [line.split(" - ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED ")]
    if done.returncode == 1 and failed:
        return f"red: {failed[0].partition('::')[2]}"
    return f"**exit {done.returncode}**: {_last(done.stdout) or _last(done.stderr)}"


def markdown(chosen: Sequence[Mutation], verdicts: Sequence[Verdict]) -> str:
    """Return the table, a line a mutation."""
    lines = ["| property | test | broken how | result |", "|---|---|---|---|"]
    for one, verdict in zip(chosen, verdicts, strict=True):
        about = VECTORS.get(one.name) or PROPERTIES.get(one.name)
        name = f"{one.name}: {about}" if about else one.name
        tests = "<br>".join(f"`{node.removeprefix('tests/')}`" for node in one.nodes)
        cells = [name, tests, one.told, verdict.said]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    red = sum(verdict.red for verdict in verdicts)
    return "\n".join([*lines, "", f"{red} of {len(verdicts)} mutations turn a test red."])


def _last(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else ""


def _line(code: str) -> str:
    """Return code on one line; nothing is said to be nothing."""
    return " ⏎ ".join(part.strip() for part in code.strip().splitlines()) or "nothing"


if __name__ == "__main__":
    sys.exit(main())
