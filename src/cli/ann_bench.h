// Recall and speed of this engine on a file in the layout of ann-benchmarks: the work of
// `aionbd bench ann`, in process and over the public API alone.
//
// Recall counts as ann-benchmarks does: an answer is right when its true distance is not above that
// of the k-th true neighbour, so equally near rows are all right. Rounding is allowed for by
// kDistanceTolerance. Answers are timed as a caller gets them: ids and scores, without payload.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "aionbd/collection.h"
#include "aionbd/database.h"
#include "cli/ann_truth.h"
#include "cli/progress.h"

namespace aionbd {

/// Share of a distance by which an answer may lie beyond the k-th true neighbour.
inline constexpr double kDistanceTolerance = 1e-3;
/// The payload {"r": n} of --selectivity: n is uniform below this.
inline constexpr uint64_t kSelectivityRange = 1000000;

/// One line of the result: what a search is told beside its query.
struct AnnSetting {
  std::optional<uint32_t> param;
  std::optional<double> target_recall;
};

struct AnnOptions {
  std::string path;
  std::optional<Metric> metric;  // unset: the file's
  SearchMode mode = SearchMode::kExact;
  uint32_t k = 10;
  uint64_t rows_max = UINT64_MAX;
  uint64_t queries_max = UINT64_MAX;
  uint32_t threads = 1;  // of one search; 0 = one per core
  uint32_t repeats = 3;  // each at least one pass over the queries, and at least `seconds`
  double seconds = 1;
  uint32_t batch = 256;         // queries per search_batch; 0 leaves batches out
  std::optional<uint32_t> pin;  // CPU the searching thread stays on

  /// Where the collection lives, to be found again by the next run. Empty: a temporary directory.
  std::string data_dir;

  /// Data set with one label per row, stored as payload {"label": n}; and the label to filter by.
  std::string labels;
  std::optional<int64_t> label_wanted;
  /// Share of the rows that a filter on a generated payload field lets through.
  std::optional<double> selectivity;
};

/// What was done before the first search, and on what.
struct AnnSetup {
  uint64_t rows = 0, queries = 0, rows_matching = 0;
  uint32_t dimension = 0;
  Metric metric = Metric::kL2;
  bool truth_computed = false;  // here; false: taken from the file
  bool reused = false;          // the collection was in data_dir already
  double load_seconds = 0;
  double optimize_seconds = 0;  // sealing, merging, building indexes
  uint64_t segments = 0;
  uint64_t vector_bytes = 0;  // of the rows as f32
  uint64_t disk_bytes = 0;
  uint64_t memory_bytes = 0;
  uint64_t index_bytes = 0;
};

struct AnnRow {
  AnnSetting setting;
  std::string mode;      // what really ran; "exact+graph" when it differed between queries
  double recall = 0;     // mean over the queries
  double recall_p5 = 0;  // one query in twenty is worse
  std::optional<double> recall_promised;  // mean of what the engine said of itself
  double qps = 0;                         // one query at a time: the median repeat
  double p50_us = 0, p99_us = 0;
  std::optional<double> batch_qps;
  double candidates = 0;  // rows compared per query
  uint64_t resident_bytes = 0;
  uint64_t anonymous_bytes = 0;  // of these, not backed by a file
};

/// A collection filled from a file, and its true answers. Thread safety: single owner.
class AnnBench {
 public:
  /// Told what is about to happen, and how far it is where that is known.
  using Report = std::function<void(std::string_view step, const ProgressState& state)>;

  /// Loads the file (unless `data_dir` has it already), optimizes, finds the true answers.
  /// Errors: of the file, of the engine; unavailable once `stop` is set.
  static Result<std::unique_ptr<AnnBench>> open(const AnnOptions& options,
                                                const std::atomic<bool>& stop,
                                                const Report& report);
  ~AnnBench();

  const AnnSetup& setup() const { return setup_; }
  Result<AnnRow> measure(const AnnSetting& setting);

 private:
  /// Answers of all queries: row numbers.
  using Answers = std::vector<std::vector<uint64_t>>;

  AnnBench(const AnnOptions& options, const std::atomic<bool>& stop) : o_(options), stop_(stop) {}
  Status prepare(const Report& report);
  Status describe_file();
  Status open_database();
  Result<bool> find_loaded();
  Status load(const Report& report);
  Result<std::vector<int64_t>> read_labels() const;
  Payload payload_of(uint64_t row, const std::vector<int64_t>& labels) const;
  void make_filter();
  Status find_truth(const Report& report);
  Status read_stats();

  SearchRequest request_of(const AnnSetting& setting) const;
  Result<Answers> answer_all(const SearchRequest& request, AnnRow* out);
  Status rate(const Answers& answers, AnnRow* out) const;
  Status time_single(const SearchRequest& request, AnnRow* out);
  Status time_batches(const SearchRequest& request, AnnRow* out);
  Status count_candidates(const SearchRequest& request, AnnRow* out);
  Result<std::vector<double>> distances_of(size_t query, const std::vector<uint64_t>& rows) const;
  Status go_on() const;

  const AnnOptions o_;
  const std::atomic<bool>& stop_;
  AnnSetup setup_;
  std::string temporary_dir_;
  std::string collection_name_;
  std::unique_ptr<Database> database_;
  std::shared_ptr<Collection> collection_;
  FloatRows queries_;
  std::optional<Filter> filter_;
  Truth truth_;
};

/// "l2", "exact", ...: as the flags spell them.
std::string_view metric_word(Metric metric);
std::string_view mode_word(SearchMode mode);

/// The machine, for the head of a report: "AMD EPYC, 2 cores, avx512".
std::string machine_line();

}  // namespace aionbd
