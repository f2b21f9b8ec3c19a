"""The replay of track 3's seeds stops where the pilot would."""

from __future__ import annotations

from benchmarks.replayed_seeds import EVERY, ONCE, pairs, rows, stop


def test_clear_gains_end_a_look_at_every_pair_at_the_third() -> None:
    gains = [0.001, -0.001, 0.0, 0.002, -0.002]
    assert stop(gains, -0.1, EVERY) == ("go", True, 3)
    assert stop(gains, 0.1, EVERY) == ("no-go", True, 3)
    assert stop(gains, 0.1, ONCE) == ("no-go", True, 5)


def test_an_open_question_takes_all_its_pairs() -> None:
    told, held, taken = stop([1.0, -1.0, 0.5, -0.5, 0.2], 0.9, EVERY)
    assert (told, held, taken) == ("not-enough-runs", True, 5)


def test_pairs_are_differences_within_a_cell() -> None:
    drawn = pairs([[1.0, 1.5], [9.0, 9.5]], 4, 6, seed=0)
    assert {g for gains in drawn for g in gains} <= {-0.5, 0.0, 0.5}
    assert [len(gains) for gains in drawn] == [4] * 6


def test_the_table_has_a_row_for_each_distance_and_design() -> None:
    table = rows([[0.0, 0.001, 0.003, 0.004]], 20)
    assert len(table) == 21
    assert {row[1] for row in table} == {"3 pairs", "5 pairs", "every pair to 10"}
