"""One to four ranks: the same loss, gradient, rows, scores and decisions. Real processes, gloo."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from demo.corpus import Pair
from tests.conftest import CHECKOUT
from tests.trainer.helpers import ALONE, FAMILIES, KEYS, Practised, assert_same_gradient, build
from tests.trainer.multirank import LAYOUTS, METHODS, ROOM, SAVED_AT, WALK_FAMILY, Spec, gradient_file, measure
from tests.trainer.relay import END, RELAY, relay

SIZES = (1, 2, 3)
SEVERAL = (2, 3)
Ranks = dict[int, list[dict[str, Any]]]
# torchrun whose ranks are forks of it: it has loaded once what they need.
TORCHRUN = """
import tests.trainer.multirank, torch.distributed.run
from chaos import warm
warm.fork_what_is_started()
torch.distributed.run.main()
"""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder where the ranks leave what they measured."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(
    out: Path,
    standins: Callable[[str], Path],
    practised: Callable[[str], Practised],
    short_text: list[Pair],
) -> Ranks:
    """Give what each rank of each world size measured; one start of torchrun for all."""
    translating = ("mbart50", "m2m100")
    spec = Spec(
        folders={family: str(standins(family)) for family in FAMILIES},
        practised={family: str(practised(family).folder) for family in translating},
        pairs=list(short_text),
        learned=list(practised("mbart50").pairs[:11]),  # a prime number: no world size divides it
    )
    spec.write(out / "spec.json")
    torchrun = [sys.executable, "-c", TORCHRUN, "--standalone", "--nproc-per-node", "4"]
    done = subprocess.run(
        [*torchrun, "-m", "tests.trainer.multirank", str(out / "spec.json"), str(out)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: Ranks = {1: [measure(ALONE, spec, out)]}
    for size in SEVERAL:
        found[size] = [json.loads((out / f"rank-{rank}-of-{size}.json").read_text()) for rank in range(size)]
    return found


class TestSplitInvariance:
    """1 x 1 x 16, 1 x 2 x 8, 2 x 1 x 8, 2 x 2 x 4 and uneven splits: processes x rounds x rows."""

    @pytest.mark.parametrize("family", FAMILIES)
    @pytest.mark.parametrize("method", METHODS)
    def test_loss_and_gradient_are_equal(self, family: str, method: str, ranks: Ranks, out: Path) -> None:
        name = f"{family}-{method}"
        whole = ranks[1][0]["gradients"][name]["1"]
        expected = load_file(gradient_file(out, 1, 1, family, method))
        compared = 0
        for size in SIZES:
            for bins in LAYOUTS[size]:
                assert_same_gradient(expected, load_file(gradient_file(out, size, bins, family, method)))
                for rank in ranks[size]:
                    assert rank["gradients"][name][str(bins)] == pytest.approx(whole, rel=1e-4)
                    compared += 1
        assert compared == 2 + 2 * 3 + 3 * 2


class TestTraining:
    @pytest.mark.parametrize("size", SIZES)
    def test_every_row_is_learned_from_once(self, size: int, ranks: Ranks) -> None:
        learned = [row for rank in ranks[size] for row in rank["walk"]["learned"]]
        assert sorted(learned) == list(range(32))
        assert all(rank["walk"]["learned"] for rank in ranks[size])

    @pytest.mark.parametrize("size", SEVERAL)
    def test_another_world_size_walks_the_same_global_batches(self, size: int, ranks: Ranks) -> None:
        """With layers that the checkpoint asks to drop, and a last step with fewer micro-batches than ranks."""
        alone = ranks[1][0]["walk"]
        assert len(alone["losses"]) > SAVED_AT
        for rank in ranks[size]:
            assert rank["walk"]["rows"] == alone["rows"]
            assert rank["walk"]["losses"] == pytest.approx(alone["losses"], rel=1e-4)
            assert rank["walk"]["grad_norms"] == pytest.approx(alone["grad_norms"], rel=1e-3)

    @pytest.mark.parametrize("size", SEVERAL)
    def test_weights_are_the_same_on_every_rank(self, size: int, ranks: Ranks) -> None:
        for part in ("walk", "qlora"):
            assert len({rank[part]["weights"] for rank in ranks[size]}) == 1

    @pytest.mark.parametrize("size", SEVERAL)
    def test_no_rank_spreads_its_model_over_devices(self, size: int, ranks: Ranks) -> None:
        assert not any(rank["walk"]["spread_over_devices"] for rank in ranks[size])

    @pytest.mark.parametrize("size", SIZES)
    def test_a_stop_asked_of_one_rank_is_heard_by_all_at_one_step(self, size: int, ranks: Ranks) -> None:
        for rank in ranks[size]:
            stops = rank["walk"]["stop"]
            assert stops == [False, True] + [False] * (len(stops) - 2)

    @pytest.mark.parametrize("size", SEVERAL)
    def test_quantised_base_trains_on_several_ranks(self, size: int, ranks: Ranks) -> None:
        alone = ranks[1][0]["qlora"]["losses"]
        for rank in ranks[size]:
            assert rank["qlora"]["losses"] == pytest.approx(alone, rel=1e-3)


class TestCheckpoints:
    @pytest.mark.parametrize("size", SIZES)
    def test_written_by_three_ranks_is_continued_by_any_number(self, size: int, ranks: Ranks) -> None:
        unbroken = ranks[1][0]["walk"]["losses"][SAVED_AT:]
        for rank in ranks[size]:
            assert rank["resumed"] == pytest.approx(unbroken, rel=1e-4)

    def test_have_the_random_state_of_every_rank(self, ranks: Ranks, out: Path) -> None:
        for size in SIZES:
            (folder,) = (out / f"checkpoints-of-{size}").iterdir()
            states = sorted(path.name for path in folder.glob("random-*"))
            assert states == [f"random-{rank}.safetensors" for rank in range(size)]

    def test_four_then_two_then_three_ranks_see_every_row_once_an_epoch(
        self, ranks: Ranks, out: Path, standins: Callable[[str], Path], short_text: list[Pair]
    ) -> None:
        alone = relay(build(KEYS[WALK_FAMILY], standins(WALK_FAMILY), short_text), out / "alone", END)
        stages = [
            [json.loads((out / f"relay-{rank}-of-{size}.json").read_text()) for rank in range(size)]
            for size, _ in RELAY
        ]
        assert alone["steps_per_epoch"] == 3
        assert [[rank["step"] for rank in stage] for stage in stages] == [[2] * 4, [4] * 2, [6] * 3]
        for epoch in alone["learned"]:
            learned = [row for stage in stages for rank in stage for row in rank["learned"][epoch]]
            assert sorted(learned) == list(range(32)) == sorted(alone["learned"][epoch])
        losses = [loss for stage in stages for loss in stage[0]["losses"]]
        assert losses == pytest.approx(alone["losses"], rel=1e-4)


class TestTrouble:
    @pytest.mark.parametrize("size", SEVERAL)
    def test_a_rank_without_a_bin_takes_the_first_step_in_half_precision_too(self, size: int, ranks: Ranks) -> None:
        assert [rank["half"] for rank in ranks[size]] == [pytest.approx(ranks[1][0]["half"])] * size

    @pytest.mark.parametrize("size", SIZES)
    def test_one_rank_short_of_memory_makes_all_cut_smaller_in_the_same_steps(self, size: int, ranks: Ranks) -> None:
        alone = ranks[1][0]["walk"]
        (tokens,) = {rank["troubled"]["micro_batch_tokens"] for rank in ranks[size]}
        assert tokens <= ROOM
        for rank in ranks[size]:
            assert rank["troubled"]["losses"] == pytest.approx(alone["losses"][:1], rel=1e-4)
            assert rank["troubled"]["grad_norms"] == pytest.approx(alone["grad_norms"][:1], rel=1e-3)

    @pytest.mark.parametrize("size", SIZES)
    def test_a_loss_that_is_no_number_on_one_rank_is_skipped_by_all(self, size: int, ranks: Ranks) -> None:
        for rank in ranks[size]:
            skipped = rank["troubled"]["skipped"]
            assert skipped == [False, True] + [False] * (len(skipped) - 2)
            suspects = list(rank["troubled"]["suspects"])
            assert suspects and suspects == list(ranks[size][0]["troubled"]["suspects"])
        assert len({rank["troubled"]["weights"] for rank in ranks[size]}) == 1


class TestEvaluation:
    @pytest.mark.parametrize("family", ["mbart50", "m2m100"])
    def test_translations_and_scores_do_not_depend_on_the_number_of_ranks(self, family: str, ranks: Ranks) -> None:
        alone = ranks[1][0]["translations"][family]
        assert alone["scores"]["n"] == 11
        assert alone["scores"]["bleu"] > 30
        for size in SEVERAL:
            for rank in ranks[size]:
                assert rank["translations"][family] == alone

    def test_nll_is_the_same_and_all_ranks_stop_at_one_step(self, ranks: Ranks) -> None:
        alone = ranks[1][0]["early"]
        assert alone["step"] == 3  # the first score counts as the best, two more without gain end it
        for size in SEVERAL:
            assert {rank["early"]["step"] for rank in ranks[size]} == {3}
            assert len({str(rank["early"]["nll"]) for rank in ranks[size]}) == 1
            assert ranks[size][0]["early"]["nll"] == pytest.approx(alone["nll"], rel=1e-4)
