// Filling a collection from a benchmark file, asking it, rating the answers.
#include "cli/ann_bench.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/rng.h"
#include "cli/row_source.h"
#include "io/file_system.h"

namespace aionbd {
namespace {

/// Points of one upsert while loading.
constexpr size_t kLoadRows = 1024;
/// Queries asked once more with `explain`, for the number of rows compared.
constexpr size_t kExplainedQueries = 100;
/// The payload of a row must not depend on the run.
constexpr uint64_t kPayloadSeed = 20261122;
constexpr uint64_t kProcFileBytesMax = uint64_t{8} << 20;

uint64_t payload_number(uint64_t row) {
  return Rng(kPayloadSeed + row).below(kSelectivityRange);
}

double seconds_since(MonotonicTime start) {
  return std::chrono::duration<double>(system_clock_source().now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

/// REQUIRES: sorted, not empty.
double percentile(const std::vector<double>& sorted, double share) {
  return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1) + 0.5)];
}

/// Characters a collection name may have; "a.b.hdf5" becomes "a-b-hdf5".
std::string name_part(std::string text) {
  for (char& c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!plain) c = '-';
  }
  constexpr size_t kPartCharsMax = 80;
  return text.substr(0, kPartCharsMax);
}

struct ResidentBytes {
  uint64_t all = 0, anonymous = 0;
};

/// From /proc/self/statm: pages in all, resident, and of these shared with files.
ResidentBytes resident_bytes() {
  const auto text = posix_file_system().read("/proc/self/statm", kProcFileBytesMax);
  if (!text.has_value()) return {};
  uint64_t pages[3] = {0, 0, 0};
  const char* at = text->data();
  const char* const end = at + text->size();
  for (uint64_t& number : pages) {
    while (at < end && *at == ' ') ++at;
    at = std::from_chars(at, end, number).ptr;
  }
  const auto page_bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return {pages[1] * page_bytes, (pages[1] - std::min(pages[1], pages[2])) * page_bytes};
}

Status pin_to(uint32_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (cpu >= CPU_SETSIZE) return invalid_argument("--pin: no CPU " + std::to_string(cpu));
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof(set), &set) != 0) {
    return invalid_argument("--pin: the machine has no CPU " + std::to_string(cpu) +
                            " this process may use");
  }
  return {};
}

std::string cpu_name() {
  const auto text = posix_file_system().read("/proc/cpuinfo", kProcFileBytesMax);
  if (!text.has_value()) return "unknown CPU";
  const size_t line = text->find("model name");
  const size_t colon = line == std::string::npos ? line : text->find(": ", line);
  if (colon == std::string::npos) return "unknown CPU";
  return text->substr(colon + 2, text->find('\n', colon) - colon - 2);
}

}  // namespace

std::string_view metric_word(Metric metric) {
  switch (metric) {
    case Metric::kDot: return "dot";
    case Metric::kL2: return "l2";
    case Metric::kCosine: return "cosine";
  }
  return "";
}

std::string_view mode_word(SearchMode mode) {
  switch (mode) {
    case SearchMode::kExact: return "exact";
    case SearchMode::kIvf: return "ivf";
    case SearchMode::kGraph: return "graph";
    case SearchMode::kAuto: return "auto";
  }
  return "";
}

std::string machine_line() {
  return cpu_name() + ", " + std::to_string(std::thread::hardware_concurrency()) + " cores, " +
         std::string(Database::simd_target()) + ", aionbd " + std::string(version());
}

// ---- Preparing ---------------------------------------------------------------------------------

Result<std::unique_ptr<AnnBench>> AnnBench::open(const AnnOptions& options,
                                                 const std::atomic<bool>& stop,
                                                 const Report& report) {
  std::unique_ptr<AnnBench> bench(new AnnBench(options, stop));
  RETURN_IF_ERROR(bench->prepare(report));
  return bench;
}

AnnBench::~AnnBench() {
  collection_.reset();
  database_.reset();
  std::error_code ignored;
  if (!temporary_dir_.empty()) std::filesystem::remove_all(temporary_dir_, ignored);
}

Status AnnBench::go_on() const {
  return stop_.load(std::memory_order_relaxed) ? unavailable("stopped") : Status();
}

Status AnnBench::prepare(const Report& report) {
  RETURN_IF_ERROR(describe_file());
  RETURN_IF_ERROR(open_database());
  ASSIGN_OR_RETURN(setup_.reused, find_loaded());
  if (!setup_.reused) RETURN_IF_ERROR(load(report));
  report("optimizing (sealing, merging, building indexes)", {});
  const MonotonicTime start = system_clock_source().now();
  RETURN_IF_ERROR(collection_->optimize());
  setup_.optimize_seconds = seconds_since(start);
  make_filter();
  RETURN_IF_ERROR(find_truth(report));
  return read_stats();
}

Status AnnBench::describe_file() {
  ASSIGN_OR_RETURN(const auto train, open_hdf5(o_.path, "train"));
  setup_.rows = std::min(train->rows_count().value_or(0), o_.rows_max);
  setup_.dimension = train->dimension();
  if (!o_.metric && !train->metric()) {
    return invalid_argument(
        "the file does not name its distance (attribute 'distance', euclidean "
        "or angular): give --metric");
  }
  setup_.metric = o_.metric ? *o_.metric : *train->metric();
  ASSIGN_OR_RETURN(queries_, read_rows(o_.path, "test", o_.queries_max));
  setup_.queries = queries_.rows;
  setup_.vector_bytes = setup_.rows * setup_.dimension * sizeof(float);
  if (setup_.rows == 0 || setup_.queries == 0) {
    return invalid_argument("the data sets 'train' and 'test' must have rows");
  }
  if (queries_.dimension != setup_.dimension) {
    return invalid_argument("'test' differs from 'train' in numbers per row: got " +
                            std::to_string(queries_.dimension) + ", want " +
                            std::to_string(setup_.dimension));
  }
  return {};
}

Status AnnBench::open_database() {
  DatabaseOptions options;
  options.data_dir = o_.data_dir;
  if (o_.data_dir.empty()) {
    temporary_dir_ = (std::filesystem::temp_directory_path() / "aionbd-bench-XXXXXX").string();
    if (mkdtemp(temporary_dir_.data()) == nullptr) {
      const std::string wanted = std::exchange(temporary_dir_, {});
      return io_error("cannot make a temporary directory like " + wanted + "; give --data-dir");
    }
    options.data_dir = temporary_dir_;
  }
  // Nothing here has to survive a power cut, and syncing is not what is measured.
  options.durability.sync_on_write = false;
  options.dimension_max = kDimensionCeiling;
  options.points_per_collection_max = setup_.rows;
  options.search_threads = o_.threads;
  ASSIGN_OR_RETURN(database_, Database::open(std::move(options)));
  collection_name_ = name_part(std::filesystem::path(o_.path).stem().string()) + "." +
                     std::to_string(setup_.rows) + "." + std::string(metric_word(setup_.metric));
  if (!o_.labels.empty()) collection_name_ += ".label";
  if (o_.selectivity) collection_name_ += ".r";
  return {};
}

Result<bool> AnnBench::find_loaded() {
  auto found = database_->collection(collection_name_);
  if (!found.has_value()) return false;
  // One that an interrupted run left, or of another file of that name, is replaced.
  const CollectionInfo info = (*found)->info();
  if (info.points_count == setup_.rows && info.options.dimension == setup_.dimension) {
    const PointId last(setup_.rows - 1);
    ASSIGN_OR_RETURN(const auto source, open_hdf5(o_.path, "train"));
    RETURN_IF_ERROR(source->skip(setup_.rows - 1));
    RowBatch row;
    RETURN_IF_ERROR(source->next(1, SIZE_MAX, &row));
    ASSIGN_OR_RETURN(const GetResult stored,
                     (*found)->get(std::span(&last, 1), {.include_payload = false}));
    if (!stored.points.empty() && stored.points[0].values == row.values) {
      collection_ = *found;
      return true;
    }
  }
  found->reset();
  RETURN_IF_ERROR(database_->drop_collection(collection_name_));
  return false;
}

Payload AnnBench::payload_of(uint64_t row, const std::vector<int64_t>& labels) const {
  Payload payload;
  if (!labels.empty()) payload["label"] = labels[static_cast<size_t>(row)];
  if (o_.selectivity) payload["r"] = payload_number(row);
  return payload;
}

Status AnnBench::load(const Report& report) {
  const MonotonicTime start = system_clock_source().now();
  CollectionOptions options;
  options.dimension = setup_.dimension;
  options.metric = setup_.metric;
  ASSIGN_OR_RETURN(collection_, database_->create_collection(collection_name_, options));
  ASSIGN_OR_RETURN(const std::vector<int64_t> labels, read_labels());
  const auto add = [&](uint64_t first, const FloatRows& piece) -> Status {
    RETURN_IF_ERROR(go_on());
    const double share = static_cast<double>(first) / static_cast<double>(setup_.rows);
    report("loading", {first, 0, first * setup_.dimension * sizeof(float), share});
    std::vector<Point> points(static_cast<size_t>(piece.rows));
    for (size_t i = 0; i < points.size(); ++i) {
      const auto values = piece.row(i);
      points[i].id = PointId(first + i);
      points[i].values.assign(values.begin(), values.end());
      points[i].payload = payload_of(first + i, labels);
    }
    const auto upserted = collection_->upsert(points);
    if (upserted.has_value()) return {};
    return upserted.error().with_context("rows from " + std::to_string(first));
  };
  RETURN_IF_ERROR(visit_rows(o_.path, "train", setup_.rows, kLoadRows, add));
  setup_.load_seconds = seconds_since(start);
  return {};
}

Result<std::vector<int64_t>> AnnBench::read_labels() const {
  if (o_.labels.empty()) return std::vector<int64_t>();
  auto column = read_rows(o_.path, o_.labels, setup_.rows);
  if (!column.has_value()) return column.error().with_context("--label-from");
  if (column->dimension != 1 || column->rows < setup_.rows) {
    return invalid_argument("--label-from: '" + o_.labels + "' must have one number per row, got " +
                            std::to_string(column->rows) + " x " +
                            std::to_string(column->dimension));
  }
  std::vector<int64_t> labels;
  for (const float value : column->values) {
    constexpr float kLabelMax = 1 << 24;  // a reader's f32 holds integers exactly up to here
    if (!(std::abs(value) <= kLabelMax)) return invalid_argument("--label-from: label over 2^24");
    labels.push_back(static_cast<int64_t>(value));
  }
  return labels;
}

void AnnBench::make_filter() {
  Clause clause;
  if (o_.selectivity) {
    clause.field = "r";
    InRange range;
    range.lt = Value(*o_.selectivity * static_cast<double>(kSelectivityRange));
    clause.test = range;
  } else if (o_.label_wanted) {
    clause.field = "label";
    clause.test = EqualTo{Value(*o_.label_wanted)};
  } else {
    return;
  }
  filter_.emplace();
  filter_->must.push_back(std::move(clause));
}

Status AnnBench::find_truth(const Report& report) {
  ASSIGN_OR_RETURN(const auto train, open_hdf5(o_.path, "train"));
  const bool whole = setup_.rows == train->rows_count() && setup_.metric == train->metric();
  setup_.rows_matching = setup_.rows;
  if (whole && !filter_) {
    auto named = read_truth(o_.path, setup_.queries, o_.k, setup_.rows);
    if (named.has_value()) truth_ = std::move(*named);
    // Too short, or not there: found here instead.
    if (!named.has_value() && named.error().code() == Code::kCorruption) return named.error();
  }
  if (!truth_.empty()) return {};
  report("finding the true answers", {});
  TruthQuestion question;
  question.path = o_.path;
  question.rows = setup_.rows;
  question.metric = setup_.metric;
  question.k = o_.k;
  question.queries = &queries_;
  std::vector<int64_t> labels;
  if (o_.label_wanted) {
    ASSIGN_OR_RETURN(labels, read_labels());
    question.matches = [&](uint64_t row) {
      return labels[static_cast<size_t>(row)] == *o_.label_wanted;
    };
  } else if (o_.selectivity) {
    const double bound = *o_.selectivity * static_cast<double>(kSelectivityRange);
    question.matches = [bound](uint64_t row) {
      return static_cast<double>(payload_number(row)) < bound;
    };
  }
  ASSIGN_OR_RETURN(truth_, compute_truth(question));
  setup_.truth_computed = true;
  if (question.matches) {
    setup_.rows_matching = 0;
    for (uint64_t row = 0; row < setup_.rows; ++row) setup_.rows_matching += question.matches(row);
  }
  return {};
}

Status AnnBench::read_stats() {
  ASSIGN_OR_RETURN(const CollectionStats stats, collection_->stats());
  setup_.segments = stats.segments.size();
  setup_.disk_bytes = stats.disk_bytes;
  setup_.memory_bytes = stats.memory_bytes;
  setup_.index_bytes = stats.index_bytes;
  return {};
}

// ---- Measuring ---------------------------------------------------------------------------------

SearchRequest AnnBench::request_of(const AnnSetting& setting) const {
  SearchRequest request;
  request.limit = o_.k;
  request.mode = o_.mode;
  request.target_recall = setting.target_recall;
  request.filter = filter_ ? &*filter_ : nullptr;
  request.include_payload = false;
  request.param = setting.param;
  return request;
}

Result<AnnRow> AnnBench::measure(const AnnSetting& setting) {
  const SearchRequest request = request_of(setting);
  if (o_.pin) RETURN_IF_ERROR(pin_to(*o_.pin));
  AnnRow row;
  row.setting = setting;
  ASSIGN_OR_RETURN(const Answers answers, answer_all(request, &row));  // also warms up
  RETURN_IF_ERROR(rate(answers, &row));
  RETURN_IF_ERROR(time_single(request, &row));
  if (o_.batch > 0) RETURN_IF_ERROR(time_batches(request, &row));
  RETURN_IF_ERROR(count_candidates(request, &row));
  const ResidentBytes resident = resident_bytes();
  row.resident_bytes = resident.all;
  row.anonymous_bytes = resident.anonymous;
  return row;
}

Result<AnnBench::Answers> AnnBench::answer_all(const SearchRequest& request, AnnRow* out) {
  Answers answers;
  std::set<std::string_view> modes;
  double promised = 0;
  bool all_promise = true;
  for (uint64_t query = 0; query < queries_.rows; ++query) {
    RETURN_IF_ERROR(go_on());
    SearchRequest one = request;
    one.query = queries_.row(query);
    ASSIGN_OR_RETURN(const SearchResult result, collection_->search(one));
    modes.insert(mode_word(result.mode));
    all_promise = all_promise && result.recall_at_k.has_value();
    promised += result.recall_at_k.value_or(0);
    std::vector<uint64_t> rows;
    for (const Hit& hit : result.hits) rows.push_back(hit.id.number());
    answers.push_back(std::move(rows));
  }
  for (const std::string_view mode : modes) {
    if (!out->mode.empty()) out->mode += '+';
    out->mode += mode;
  }
  if (all_promise) out->recall_promised = promised / static_cast<double>(queries_.rows);
  return answers;
}

Result<std::vector<double>> AnnBench::distances_of(size_t query,
                                                   const std::vector<uint64_t>& rows) const {
  const std::vector<PointId> ids(rows.begin(), rows.end());
  ASSIGN_OR_RETURN(const GetResult stored, collection_->get(ids, {.include_payload = false}));
  if (!stored.missing.empty()) {
    return internal_error("an answer names a point that is not there: " +
                          stored.missing[0].to_string());
  }
  std::vector<double> distances;
  for (const Point& point : stored.points) {
    distances.push_back(true_distance(setup_.metric, queries_.row(query), point.values));
  }
  return distances;
}

Status AnnBench::rate(const Answers& answers, AnnRow* out) const {
  std::vector<double> recalls;
  for (size_t query = 0; query < answers.size(); ++query) {
    const auto distances = [this, query](const std::vector<uint64_t>& rows) {
      return distances_of(query, rows);
    };
    ASSIGN_OR_RETURN(const double recall,
                     recall_of(answers[query], truth_[query], kDistanceTolerance, distances));
    recalls.push_back(recall);
  }
  for (const double recall : recalls) out->recall += recall / static_cast<double>(recalls.size());
  std::sort(recalls.begin(), recalls.end());
  out->recall_p5 = percentile(recalls, 0.05);
  return {};
}

Status AnnBench::time_single(const SearchRequest& request, AnnRow* out) {
  const Clock& clock = system_clock_source();
  SearchRequest one = request;
  std::vector<double> qps, latencies_us;
  for (uint32_t repeat = 0; repeat < o_.repeats; ++repeat) {
    const MonotonicTime start = clock.now();
    uint64_t asked = 0;
    do {
      MonotonicTime before = clock.now();
      for (uint64_t query = 0; query < queries_.rows; ++query) {
        if (stop_.load(std::memory_order_relaxed)) return go_on();
        one.query = queries_.row(query);
        ASSIGN_OR_RETURN(const SearchResult result, collection_->search(one));
        const MonotonicTime after = clock.now();
        latencies_us.push_back(std::chrono::duration<double, std::micro>(after - before).count());
        before = after;
      }
      asked += queries_.rows;
    } while (seconds_since(start) < o_.seconds);
    qps.push_back(static_cast<double>(asked) / std::max(seconds_since(start), 1e-9));
  }
  out->qps = median(qps);
  std::sort(latencies_us.begin(), latencies_us.end());
  out->p50_us = percentile(latencies_us, 0.50);
  out->p99_us = percentile(latencies_us, 0.99);
  return {};
}

Status AnnBench::time_batches(const SearchRequest& request, AnnRow* out) {
  std::vector<SearchBatchRequest> batches;
  for (uint64_t query = 0; query < queries_.rows; ++query) {
    if (query % o_.batch == 0) batches.push_back({{}, request});
    batches.back().queries.push_back(queries_.row(query));
  }
  std::vector<double> qps;
  for (uint32_t repeat = 0; repeat < o_.repeats; ++repeat) {
    const MonotonicTime start = system_clock_source().now();
    uint64_t asked = 0;
    do {
      for (const SearchBatchRequest& batch : batches) {
        RETURN_IF_ERROR(go_on());
        RETURN_IF_ERROR(collection_->search_batch(batch).status());
      }
      asked += queries_.rows;
    } while (seconds_since(start) < o_.seconds);
    qps.push_back(static_cast<double>(asked) / std::max(seconds_since(start), 1e-9));
  }
  out->batch_qps = median(qps);
  return {};
}

Status AnnBench::count_candidates(const SearchRequest& request, AnnRow* out) {
  const uint64_t asked = std::min<uint64_t>(queries_.rows, kExplainedQueries);
  SearchRequest one = request;
  one.explain = true;
  uint64_t candidates = 0;
  for (uint64_t query = 0; query < asked; ++query) {
    one.query = queries_.row(query);
    ASSIGN_OR_RETURN(const SearchResult result, collection_->search(one));
    for (const SegmentPlan& plan : result.plan) candidates += plan.candidates;
  }
  out->candidates = static_cast<double>(candidates) / static_cast<double>(asked);
  return {};
}

}  // namespace aionbd
