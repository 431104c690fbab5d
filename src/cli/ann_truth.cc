// Reading and computing the true answers of a benchmark.
#include "cli/ann_truth.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <thread>
#include <utility>

#include "base/thread_pool.h"
#include "cli/row_source.h"

namespace aionbd {
namespace {

/// A piece of rows that stays in the cache while every query passes over it.
constexpr size_t kPieceRows = 256;
constexpr size_t kPieceBytes = size_t{64} << 20;
/// Readers yield f32, which holds integers exactly up to here.
constexpr uint64_t kExactIntegersMax = uint64_t{1} << 24;
/// Sums kept apart so that the compiler may use vector registers without reordering any of them.
constexpr size_t kLanes = 8;

struct Sums {
  double product = 0, left = 0, right = 0;
};

double sum_of(const double (&lanes)[kLanes]) {
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

double squared_distance(std::span<const float> a, std::span<const float> b) {
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= a.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const double difference = double{a[i + lane]} - double{b[i + lane]};
      lanes[lane] += difference * difference;
    }
  }
  for (; i < a.size(); ++i) {
    const double difference = double{a[i]} - double{b[i]};
    lanes[0] += difference * difference;
  }
  return sum_of(lanes);
}

Sums products(std::span<const float> a, std::span<const float> b) {
  double product[kLanes] = {}, left[kLanes] = {}, right[kLanes] = {};
  for (size_t i = 0; i < a.size(); ++i) {
    const size_t lane = i % kLanes;
    product[lane] += double{a[i]} * double{b[i]};
    left[lane] += double{a[i]} * double{a[i]};
    right[lane] += double{b[i]} * double{b[i]};
  }
  return {sum_of(product), sum_of(left), sum_of(right)};
}

/// The k nearest rows seen, as a heap with the farthest on top.
class Nearest {
 public:
  void offer(double distance, uint64_t row, size_t k) {
    const Entry entry{distance, row};
    if (entries_.size() == k) {
      if (!(entry < entries_.front())) return;
      std::pop_heap(entries_.begin(), entries_.end());
      entries_.back() = entry;
    } else {
      entries_.push_back(entry);
    }
    std::push_heap(entries_.begin(), entries_.end());
  }
  std::vector<uint64_t> sorted() {
    std::sort_heap(entries_.begin(), entries_.end());
    std::vector<uint64_t> rows;
    for (const auto& [distance, row] : entries_) rows.push_back(row);
    return rows;
  }

 private:
  using Entry = std::pair<double, uint64_t>;
  std::vector<Entry> entries_;
};

}  // namespace

Status visit_rows(const std::string& path, const std::string& dataset, uint64_t rows_max,
                  size_t piece_rows, const RowsVisit& visit) {
  ASSIGN_OR_RETURN(const auto source, open_hdf5(path, dataset));
  FloatRows piece;
  piece.dimension = source->dimension();
  for (uint64_t done = 0; done < rows_max;) {
    RowBatch batch;
    const size_t want = static_cast<size_t>(std::min<uint64_t>(rows_max - done, piece_rows));
    RETURN_IF_ERROR(source->next(want, kPieceBytes, &batch));
    if (batch.rows_taken == 0) break;
    piece.rows = batch.rows_taken;
    piece.values = std::move(batch.values);
    RETURN_IF_ERROR(visit(done, piece));
    done += piece.rows;
  }
  return {};
}

Result<FloatRows> read_rows(const std::string& path, const std::string& dataset,
                            uint64_t rows_max) {
  FloatRows all;
  const auto keep = [&all](uint64_t, const FloatRows& piece) -> Status {
    all.values.insert(all.values.end(), piece.values.begin(), piece.values.end());
    all.rows += piece.rows;
    all.dimension = piece.dimension;
    return {};
  };
  RETURN_IF_ERROR(visit_rows(path, dataset, rows_max, kPieceRows, keep));
  return all;
}

double true_distance(Metric metric, std::span<const float> a, std::span<const float> b) {
  if (metric == Metric::kL2) return std::sqrt(squared_distance(a, b));
  const Sums sums = products(a, b);
  if (metric == Metric::kDot) return -sums.product;
  const double lengths = std::sqrt(sums.left * sums.right);
  return lengths > 0 ? 1 - sums.product / lengths : 1;
}

Result<Truth> read_truth(const std::string& path, uint64_t queries, uint32_t k, uint64_t rows) {
  ASSIGN_OR_RETURN(const FloatRows lists, read_rows(path, "neighbors", queries));
  if (lists.rows < queries || lists.dimension < k) {
    return invalid_argument("the data set 'neighbors' is too small: got " +
                            std::to_string(lists.rows) + " x " + std::to_string(lists.dimension) +
                            ", want " + std::to_string(queries) + " x " + std::to_string(k));
  }
  Truth truth(static_cast<size_t>(queries));
  for (uint64_t query = 0; query < queries; ++query) {
    for (const float number : lists.row(query).first(k)) {
      if (!(number >= 0) || double{number} >= static_cast<double>(rows) ||
          rows > kExactIntegersMax) {
        return corruption("the data set 'neighbors' names a row that is not there, for query " +
                          std::to_string(query));
      }
      truth[static_cast<size_t>(query)].push_back(static_cast<uint64_t>(number));
    }
  }
  return truth;
}

Result<Truth> compute_truth(const TruthQuestion& question) {
  const FloatRows& queries = *question.queries;
  std::vector<Nearest> nearest(static_cast<size_t>(queries.rows));
  ThreadPool pool(std::max(1U, std::thread::hardware_concurrency()) - 1);
  const auto visit = [&](uint64_t first, const FloatRows& piece) -> Status {
    std::vector<uint64_t> matching;
    for (uint64_t i = 0; i < piece.rows; ++i) {
      if (!question.matches || question.matches(first + i)) matching.push_back(i);
    }
    pool.for_each(nearest.size(), [&](size_t query) {
      for (const uint64_t i : matching) {
        nearest[query].offer(true_distance(question.metric, queries.row(query), piece.row(i)),
                             first + i, question.k);
      }
    });
    return {};
  };
  RETURN_IF_ERROR(visit_rows(question.path, question.dataset, question.rows, kPieceRows, visit));
  Truth truth;
  for (Nearest& list : nearest) truth.push_back(list.sorted());
  return truth;
}

Result<double> recall_of(const std::vector<uint64_t>& answer, const std::vector<uint64_t>& truth,
                         double tolerance, const DistancesOf& distances_of) {
  if (truth.empty()) return answer.empty() ? 1.0 : 0.0;
  const std::set<uint64_t> named(truth.begin(), truth.end());
  const std::set<uint64_t> answered(answer.begin(), answer.end());
  std::vector<uint64_t> others;
  size_t right = 0;
  for (const uint64_t row : answered) {
    if (named.count(row) > 0) {
      ++right;
    } else {
      others.push_back(row);
    }
  }
  if (!others.empty()) {
    ASSIGN_OR_RETURN(const auto farthest, distances_of({truth.back()}));
    ASSIGN_OR_RETURN(const auto distances, distances_of(others));
    const double bound = farthest[0] + std::abs(farthest[0]) * tolerance;
    for (const double distance : distances) right += distance <= bound ? 1 : 0;
  }
  return static_cast<double>(std::min(right, truth.size())) / static_cast<double>(truth.size());
}

}  // namespace aionbd
