#include "cli/soak.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace aionbd {
namespace {

TEST(Soak, Durations) {
  EXPECT_EQ(parse_duration("30s").value(), std::chrono::seconds(30));
  EXPECT_EQ(parse_duration("5m").value(), std::chrono::minutes(5));
  EXPECT_EQ(parse_duration("2h").value(), std::chrono::hours(2));
  EXPECT_EQ(parse_duration("3d").value(), std::chrono::hours(72));
  for (const char* text : {"", "s", "30", "0s", "-1s", "1.5s", "1 s", "5000000000s", "1w"}) {
    EXPECT_FALSE(parse_duration(text).has_value()) << text;
  }
}

/// One sample in 36 seconds, a hundredth of an hour.
std::vector<SoakSample> samples_of(int count, const std::function<void(int, SoakSample&)>& fill) {
  std::vector<SoakSample> out;
  for (int i = 0; i < count; ++i) {
    SoakSample& sample = out.emplace_back();
    sample.seconds = i * 36;
    sample.warm = true;
    fill(i, sample);
  }
  return out;
}

TEST(Soak, SlopesAreOfWarmSamples) {
  EXPECT_FALSE(slope_of({}, &SoakSample::resident_bytes));
  const auto samples = samples_of(120, [](int i, SoakSample& sample) {
    sample.warm = i >= 20;
    sample.resident_bytes = i < 20 ? 1000000 : static_cast<uint64_t>(1000 + i);
  });
  const auto slope = slope_of(samples, &SoakSample::resident_bytes);
  ASSERT_TRUE(slope);
  EXPECT_EQ(slope->parts, 10U);
  EXPECT_NEAR(slope->per_hour, 100, 1e-6);
  EXPECT_NEAR(slope->percent_per_hour, 100 / 1069.5 * 100, 1e-6);
  EXPECT_NEAR(slope->error_per_hour, 0, 1e-6);
  EXPECT_NEAR(slope_of(samples, &SoakSample::descriptors)->per_hour, 0, 1e-9);
}

TEST(Soak, WhatAKillTakesBackIsNoSlope) {
  const auto samples = samples_of(100, [](int i, SoakSample& sample) {
    sample.life = static_cast<uint64_t>(i / 10);
    sample.resident_bytes = static_cast<uint64_t>(1000 + 50 * (i % 10));
    sample.disk_bytes = static_cast<uint64_t>(1000 + i + 50 * (i % 10));
  });
  const auto saw = slope_of(samples, &SoakSample::resident_bytes);
  ASSERT_TRUE(saw);
  EXPECT_EQ(saw->parts, 10U);
  EXPECT_NEAR(saw->per_hour, 0, 1e-6);
  EXPECT_NEAR(slope_of(samples, &SoakSample::disk_bytes)->per_hour, 100, 1e-6);
}

TEST(Soak, ALifeCutShortIsLeftOutAndFewLivesHaveNoSlope) {
  const auto samples = samples_of(44, [](int i, SoakSample& sample) {
    sample.life = static_cast<uint64_t>(i / 10);
    sample.resident_bytes = i < 40 ? 1000 : 1;
  });
  const auto slope = slope_of(samples, &SoakSample::resident_bytes);
  ASSERT_TRUE(slope);
  EXPECT_EQ(slope->parts, 4U);
  EXPECT_NEAR(slope->per_hour, 0, 1e-6);
  EXPECT_FALSE(slope_of({samples.begin(), samples.begin() + 30}, &SoakSample::resident_bytes));
}

// Means 0, 3, 0, 3 at 0, 1, 2, 3 hours: the line 0.6 + 0.6 x; the rest squared is 7.2, so the
// error is sqrt(7.2 / 2 / 5).
TEST(Soak, TheErrorOfASlopeIsThatOfARegression) {
  std::vector<SoakSample> samples;
  for (uint64_t life = 0; life < 4; ++life) {
    SoakSample& sample = samples.emplace_back();
    sample.seconds = static_cast<double>(life) * 3600;
    sample.life = life;
    sample.warm = true;
    sample.resident_bytes = life % 2 == 0 ? 0 : 3;
  }
  const auto slope = slope_of(samples, &SoakSample::resident_bytes);
  ASSERT_TRUE(slope);
  EXPECT_NEAR(slope->per_hour, 0.6, 1e-9);
  EXPECT_NEAR(slope->error_per_hour, std::sqrt(7.2 / 2 / 5), 1e-9);
}

TEST(Soak, AServerThatIsNotThereIsAFailure) {
  SoakOptions options;
  ClientOptions nowhere;
  nowhere.url = parse_server_url("http://127.0.0.1:1").value();
  nowhere.retry_for = std::chrono::milliseconds(0);
  options.server = nowhere;
  options.duration = std::chrono::milliseconds(10);
  const std::atomic<bool> stop{false};
  const SoakReport report = run_soak(options, stop, [](const SoakProgress&) {});
  EXPECT_FALSE(report.failure.empty());
  EXPECT_TRUE(report.violation.empty());
  EXPECT_EQ(report.requests(), 0U);
}

}  // namespace
}  // namespace aionbd
