#!/usr/bin/env python3
"""What campaign.py reads from the output of runs, and that its report can be written and read."""
import argparse
import contextlib
import io
import pathlib
import tempfile
import unittest

import campaign

KILL_LOOP = """seed 1, 250 kills, 8 writers, data in somewhere
10 kills (1 in recovery, 4 in a checkpoint or merge), 90 writes acknowledged, 0 refused
250 kills (51 in recovery, 111 in a checkpoint or merge), 9000 writes acknowledged, 0 refused
0 lost, 0 half batches, 0 phantoms
"""
SOAK = "100 requests in 8.0 s, 0 errors, 0 refused\n1 kills, slowest start 19 ms; requests: ...\n"


class CampaignTest(unittest.TestCase):
    def test_the_last_sum_of_kills_counts_and_where_they_hit(self):
        self.assertEqual(campaign.counts_of(KILL_LOOP),
                         {"kills": 250, "kills in recovery": 51,
                          "kills in a checkpoint or merge": 111})
        self.assertEqual(campaign.counts_of(SOAK), {"kills": 1})

    def test_counts_of_one_run_add_up(self):
        self.assertEqual(campaign.counts_of("counted: 2 images\ncounted: 3 images\n"),
                         {"images": 5})
        self.assertEqual(campaign.counts_of("Done 77 runs in 10 second(s)\n"), {"inputs": 77})

    def test_a_report_can_be_read_again(self):
        row = campaign.Row("kill -9", runs=1, first_seed=3)
        row.counts += campaign.counts_of(KILL_LOOP)
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            failures = campaign.write_report(folder, [row], argparse.Namespace(jobs=2), 3600)
            self.assertEqual(failures, 0)
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                campaign.print_table(folder / "report.json")
            self.assertIn(printed.getvalue().strip(),
                          (folder / "report.md").read_text(encoding="utf-8"))
            self.assertIn("111 kills in a checkpoint or merge", printed.getvalue())

    def test_the_kill_loop_runs_beside_the_points_the_plan_asks_for(self):
        commands = [stage.command for stage in campaign.STAGES if stage.name == "kill -9"]
        self.assertIn("--points 100000", commands[0])
        commands[0].format(seed=1, seconds=1)


if __name__ == "__main__":
    unittest.main()
