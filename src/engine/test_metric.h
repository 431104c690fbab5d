// For tests that read one of a database's metrics.
#pragma once

#include <gtest/gtest.h>

#include <string_view>

#include "aionbd/aionbd.h"

namespace aionbd {

/// The metric's value (the sum, if several samples have the name). A name that no metric has fails
/// the test.
inline double metric_of(const Database& database, std::string_view name) {
  bool found = false;
  double sum = 0;
  for (const MetricSample& sample : database.metrics()) {
    if (sample.row->name != name) continue;
    found = true;
    sum += sample.value;
  }
  EXPECT_TRUE(found) << "no metric " << name;
  return sum;
}

}  // namespace aionbd
