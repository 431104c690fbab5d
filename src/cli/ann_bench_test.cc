#include "cli/ann_bench.h"

#include <hdf5.h>

#include <algorithm>
#include <numeric>

#include "base/rng.h"
#include "cli/command.h"
#include "cli/program.h"
#include "cli/test_files.h"

namespace aionbd::ann_bench_test {
namespace {

constexpr uint64_t kRows = 600;
constexpr uint64_t kQueries = 12;
constexpr uint32_t kDimension = 19;  // no multiple of the lanes
constexpr uint32_t kNeighbors = 15;

void write_set(hid_t file, const char* name, hid_t type, hsize_t rows, hsize_t columns,
               const void* numbers) {
  const hsize_t dims[2] = {rows, columns};
  const hid_t space = H5Screate_simple(2, dims, nullptr);
  const hid_t data = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, numbers);
  H5Dclose(data);
  H5Sclose(space);
}

void write_distance(hid_t file, const std::string& distance) {
  const hid_t text = H5Tcopy(H5T_C_S1);
  H5Tset_size(text, distance.size() + 1);
  const hid_t scalar = H5Screate(H5S_SCALAR);
  const hid_t attribute = H5Acreate2(file, "distance", text, scalar, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, text, distance.c_str());
  H5Aclose(attribute);
  H5Sclose(scalar);
  H5Tclose(text);
}

class AnnBenchTest : public TestFiles {
 protected:
  AnnBenchTest() {
    Rng rng(7);
    for (float& value : train_) value = static_cast<float>(rng.uniform());
    for (float& value : test_) value = static_cast<float>(rng.uniform());
    for (size_t row = 0; row < kRows; ++row) labels_[row] = static_cast<int>(row % 3);
    options_.path = path("tiny.hdf5");
    options_.repeats = 1;
    options_.seconds = 0;
    options_.batch = 5;
  }

  /// Row numbers by distance, for one query: the plain way.
  std::vector<int> nearest(size_t query) const {
    std::vector<double> distances(kRows, 0);
    for (size_t row = 0; row < kRows; ++row) {
      for (size_t i = 0; i < kDimension; ++i) {
        const double difference =
            double{train_[row * kDimension + i]} - double{test_[query * kDimension + i]};
        distances[row] += difference * difference;
      }
    }
    std::vector<int> rows(kRows);
    std::iota(rows.begin(), rows.end(), 0);
    std::stable_sort(rows.begin(), rows.end(), [&](int a, int b) {
      return distances[static_cast<size_t>(a)] < distances[static_cast<size_t>(b)];
    });
    return rows;
  }

  void write_file(const std::string& distance = "euclidean", int neighbor_offset = 0) const {
    std::vector<int> neighbors;
    for (size_t query = 0; query < kQueries; ++query) {
      const auto rows = nearest(query);
      for (size_t i = 0; i < kNeighbors; ++i) neighbors.push_back(rows[i] + neighbor_offset);
    }
    const hid_t file = H5Fcreate(options_.path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    write_set(file, "train", H5T_NATIVE_FLOAT, kRows, kDimension, train_.data());
    write_set(file, "test", H5T_NATIVE_FLOAT, kQueries, kDimension, test_.data());
    write_set(file, "neighbors", H5T_NATIVE_INT, kQueries, kNeighbors, neighbors.data());
    write_set(file, "labels", H5T_NATIVE_INT, kRows, 1, labels_.data());
    if (!distance.empty()) write_distance(file, distance);
    H5Fclose(file);
  }

  Result<std::unique_ptr<AnnBench>> open() const {
    return AnnBench::open(options_, stop_, [](std::string_view, const ProgressState&) {});
  }
  /// The one line of an exact search. Fails the test when there is none.
  AnnRow measure(AnnSetup* setup) const {
    const auto bench = open();
    EXPECT_TRUE(bench.has_value()) << bench.error().to_string();
    if (!bench.has_value()) return {};
    *setup = (*bench)->setup();
    const auto row = (*bench)->measure({});
    EXPECT_TRUE(row.has_value()) << row.error().to_string();
    return row.has_value() ? *row : AnnRow{};
  }

  std::vector<float> train_ = std::vector<float>(kRows * kDimension);
  std::vector<float> test_ = std::vector<float>(kQueries * kDimension);
  std::vector<int> labels_ = std::vector<int>(kRows);
  AnnOptions options_;
  std::atomic<bool> stop_{false};
};

TEST_F(AnnBenchTest, ExactSearchHasTheFilesNeighbours) {
  write_file();
  AnnSetup setup;
  const AnnRow row = measure(&setup);
  EXPECT_EQ(setup.rows, kRows);
  EXPECT_EQ(setup.queries, kQueries);
  EXPECT_EQ(setup.dimension, kDimension);
  EXPECT_EQ(setup.metric, Metric::kL2);
  EXPECT_FALSE(setup.truth_computed);
  EXPECT_EQ(row.mode, "exact");
  EXPECT_EQ(row.recall, 1);
  EXPECT_EQ(row.recall_p5, 1);
  EXPECT_EQ(row.recall_promised, 1);
  EXPECT_GT(row.qps, 0);
  EXPECT_LE(row.p50_us, row.p99_us);
  EXPECT_GT(row.batch_qps, 0);
  EXPECT_GT(row.resident_bytes, row.anonymous_bytes);
  EXPECT_GT(row.anonymous_bytes, 0u);
}

TEST_F(AnnBenchTest, AnswersTheFileDoesNotHoldAreFoundByBruteForce) {
  write_file();
  const AnnOptions plain = options_;
  AnnSetup setup;
  for (const Metric metric : {Metric::kCosine, Metric::kDot}) {
    options_.metric = metric;
    EXPECT_EQ(measure(&setup).recall, 1) << metric_word(metric);
    EXPECT_TRUE(setup.truth_computed);
  }
  options_ = plain;
  options_.rows_max = 100;
  EXPECT_EQ(measure(&setup).recall, 1);
  EXPECT_TRUE(setup.truth_computed);
  EXPECT_EQ(setup.rows, 100u);
  options_ = plain;
  options_.k = kNeighbors + 5;
  EXPECT_EQ(measure(&setup).recall, 1);
  EXPECT_TRUE(setup.truth_computed);
}

TEST_F(AnnBenchTest, FiltersLetTheirShareThrough) {
  write_file();
  AnnSetup setup;
  options_.selectivity = 0.3;
  EXPECT_EQ(measure(&setup).recall, 1);
  EXPECT_NEAR(static_cast<double>(setup.rows_matching), 0.3 * kRows, 0.1 * kRows);
  options_.selectivity = 0;  // nothing to find, and nothing found
  EXPECT_EQ(measure(&setup).recall, 1);
  EXPECT_EQ(setup.rows_matching, 0u);
  options_.selectivity.reset();
  options_.labels = "labels";
  options_.label_wanted = 2;
  EXPECT_EQ(measure(&setup).recall, 1);
  EXPECT_EQ(setup.rows_matching, kRows / 3);
}

TEST_F(AnnBenchTest, AKeptCollectionIsUsedAgainUnlessTheFileChanged) {
  write_file();
  options_.data_dir = path("kept");
  AnnSetup setup;
  measure(&setup);
  EXPECT_FALSE(setup.reused);
  EXPECT_EQ(measure(&setup).recall, 1);
  EXPECT_TRUE(setup.reused);
  train_.back() += 1;
  write_file();
  EXPECT_EQ(measure(&setup).recall, 1);
  EXPECT_FALSE(setup.reused);
}

TEST_F(AnnBenchTest, FilesThatCannotBeRightAreRefused) {
  write_file("euclidean", 1000000);
  EXPECT_EQ(open().status().code(), Code::kCorruption);
  write_file("");
  EXPECT_EQ(open().status().code(), Code::kInvalidArgument);
  options_.metric = Metric::kL2;
  EXPECT_TRUE(open().has_value());
  options_.labels = "test";
  EXPECT_EQ(open().status().code(), Code::kInvalidArgument);
  options_.path = path("missing.hdf5");
  EXPECT_EQ(open().status().code(), Code::kNotFound);
}

TEST_F(AnnBenchTest, StopsWhenTold) {
  write_file();
  stop_ = true;
  EXPECT_EQ(open().status().code(), Code::kUnavailable);
}

TEST_F(AnnBenchTest, TheCommandPrintsALineForEachSetting) {
  write_file();
  testing::internal::CaptureStdout();
  const int code =
      run_program({"bench", "ann", "--file", options_.path, "--mode", "exact", "--sweep", "0.9,1",
                   "--json", "--seconds", "0", "--repeat", "1", "--quiet"});
  const std::string out = testing::internal::GetCapturedStdout();
  EXPECT_EQ(code, kExitOk);
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 3);
  EXPECT_NE(out.find("\"kind\":\"setup\""), std::string::npos) << out;
  EXPECT_NE(out.find("\"target_recall\":0.9,"), std::string::npos) << out;
  EXPECT_NE(out.find("\"recall\":1.00000,"), std::string::npos) << out;

  testing::internal::CaptureStdout();
  EXPECT_EQ(run_program({"bench", "ann", "--file", options_.path, "--mode", "exact", "--seconds",
                         "0", "--repeat", "1", "--quiet"}),
            kExitOk);
  EXPECT_NE(testing::internal::GetCapturedStdout().find("1.0000"), std::string::npos);
}

TEST_F(AnnBenchTest, BadArgumentsExit64AndNameTheirFlag) {
  write_file();
  const auto run = [this](std::vector<std::string> more) {
    std::vector<std::string> arguments{"bench", "ann", "--file", options_.path, "--quiet"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    testing::internal::CaptureStderr();
    const int code = run_program(arguments);
    const std::string text = testing::internal::GetCapturedStderr();
    return code == kExitUsage && text.find(more.front()) != std::string::npos ? "" : text;
  };
  EXPECT_EQ(run({"--sweep", "0.9,32"}), "");
  EXPECT_EQ(run({"--sweep", "16,,32"}), "");
  EXPECT_EQ(run({"--sweep", "16,x"}), "");
  EXPECT_EQ(run({"--sweep", "-1"}), "");
  EXPECT_EQ(run({"--sweep", "16", "--param", "3"}), "");
  EXPECT_EQ(run({"--filter", "colour=3"}), "");
  EXPECT_EQ(run({"--filter", "label=3"}), "");  // no --label-from
  EXPECT_EQ(run({"--filter", "label=red", "--label-from", "labels"}), "");
  EXPECT_EQ(run({"--label-from", "nothing"}), "");
  EXPECT_EQ(run({"--selectivity", "2"}), "");
  EXPECT_EQ(run({"--mode", "magic"}), "");
  EXPECT_EQ(run({"--pin", "1023"}), "");
  EXPECT_EQ(run_program({"bench"}), kExitUsage);
  EXPECT_EQ(run_program({"bench", "ann"}), kExitUsage);
  EXPECT_EQ(run_program({"bench", "ann", "--help"}), kExitOk);
}

TEST(RecallTest, CountsByDistance) {
  // Row n is n away from the query, but row 7 as far as row 2.
  const auto distances = [](const std::vector<uint64_t>& rows) -> Result<std::vector<double>> {
    std::vector<double> out;
    for (const uint64_t row : rows) out.push_back(row == 7 ? 2 : static_cast<double>(row));
    return out;
  };
  const auto recall = [&](const std::vector<uint64_t>& answer, double tolerance = 0) {
    return *recall_of(answer, {0, 1, 2}, tolerance, distances);
  };
  EXPECT_EQ(recall({0, 1, 2}), 1);
  EXPECT_EQ(recall({2, 0, 1}), 1);
  EXPECT_EQ(recall({0, 1, 7}), 1);
  EXPECT_DOUBLE_EQ(recall({0, 1, 3}), 2.0 / 3);
  EXPECT_EQ(recall({0, 1, 3}, 0.5), 1);
  EXPECT_DOUBLE_EQ(recall({0, 0, 0}), 1.0 / 3);
  EXPECT_DOUBLE_EQ(recall({0}), 1.0 / 3);
  EXPECT_EQ(recall({}), 0);
  EXPECT_EQ(recall({5, 6, 8}), 0);
  EXPECT_EQ(*recall_of({}, {}, 0, distances), 1);
  EXPECT_EQ(*recall_of({4}, {}, 0, distances), 0);
}

TEST(RecallTest, TrueDistancesAreThoseOfTheMetric) {
  const std::vector<float> a{3, 0, 4}, b{0, 0, 8}, zero{0, 0, 0};
  EXPECT_DOUBLE_EQ(true_distance(Metric::kL2, a, b), 5);
  EXPECT_DOUBLE_EQ(true_distance(Metric::kDot, a, b), -32);
  EXPECT_DOUBLE_EQ(true_distance(Metric::kCosine, a, b), 1 - 0.8);
  EXPECT_DOUBLE_EQ(true_distance(Metric::kCosine, a, zero), 1);
}

}  // namespace
}  // namespace aionbd::ann_bench_test
