#!/usr/bin/env python3
"""The arithmetic of compare.py."""
import math
import unittest

import compare


class CompareTest(unittest.TestCase):
    POINTS = [(0.90, 1000.0), (0.99, 100.0), (0.95, 50.0), (0.80, 900.0)]

    def test_beaten_settings_do_not_count(self):
        self.assertEqual(compare.frontier(self.POINTS), [(0.90, 1000.0), (0.99, 100.0)])

    def test_speed_is_interpolated_in_logarithms(self):
        middle = compare.speed_at(self.POINTS, 0.945)
        self.assertAlmostEqual(middle, math.sqrt(1000 * 100), places=6)
        self.assertAlmostEqual(compare.speed_at(self.POINTS, 0.99), 100)
        self.assertEqual(compare.speed_at(self.POINTS, 0.5), 1000)
        self.assertIsNone(compare.speed_at(self.POINTS, 0.995))
        self.assertIsNone(compare.speed_at([], 0.5))

    def test_only_lines_with_both_numbers_are_points(self):
        output = 'loading\n{"kind":"setup","rows":3}\n{"recall":0.5,"qps":20,"x":1}\n[1]\n'
        self.assertEqual(compare.points_of(output), [(0.5, 20.0)])


if __name__ == "__main__":
    unittest.main()
