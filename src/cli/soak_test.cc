#include "cli/soak.h"

#include <gtest/gtest.h>

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

TEST(Soak, SlopesAreOfWarmSamples) {
  std::vector<SoakSample> samples;
  EXPECT_FALSE(slope_of(samples, &SoakSample::resident_bytes));
  for (int i = 0; i < 100; ++i) {
    SoakSample sample;
    sample.seconds = i * 36;  // a hundredth of an hour
    sample.warm = i >= 20;
    sample.resident_bytes = i < 20 ? 1000000 : static_cast<uint64_t>(1000 + i);
    samples.push_back(sample);
  }
  const auto slope = slope_of(samples, &SoakSample::resident_bytes);
  ASSERT_TRUE(slope);
  EXPECT_NEAR(slope->per_hour, 100, 1e-6);
  EXPECT_NEAR(slope->percent_per_hour, 100 / 1059.5 * 100, 1e-6);
  EXPECT_NEAR(slope_of(samples, &SoakSample::descriptors)->per_hour, 0, 1e-9);
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
