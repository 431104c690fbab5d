#include "index/vector_index.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/rng.h"
#include "distance/kernels.h"
#include "distance/metric.h"
#include "index/top_k.h"

namespace aionbd {

namespace {

constexpr double kUnitRoundoff = 0x1p-24;
/// Longer vectors are left outside, but under cosine: their squares must stay far from the largest
/// float.
constexpr double kLengthMax = 1e15;
/// Share of rows outside that a search may return above which an index is not worth having.
constexpr double kOutsideShareMax = 0.01;
/// Where rows that no search returns are coded as lying.
constexpr float kNowhere = 1e15F;
static_assert(kNowhere * kNowhere > kNowhereDistance);

/// Rows that training looks at, and the floats they may take.
constexpr size_t kSampleRowsMax = 32768;
constexpr size_t kSampleFloatsMax = size_t{16} << 20;
/// A projection is borrowed from an index of at least this many times the rows, or of more than a
/// new one would be learnt from: learnt from fewer, a new one may be better.
constexpr uint64_t kBorrowedRowsTimes = 2;
/// Rows encoded together.
constexpr size_t kEncodeRows = 1024;

// What a build takes (build_bytes). Measured as the heap's high-water mark, 40,000 rows of 32, 128
// and 768 dimensions.
constexpr uint64_t kRowsMax = UINT32_MAX;
/// Rows that lists are learned from, each, as cluster_rows says.
constexpr uint64_t kClusterRowsPerList = 64;
/// Known lists that those to be made are chosen from, each: of eight segments of one size.
constexpr uint64_t kKnownLists = 3;
/// Copies of the sample that finding directions makes.
constexpr uint64_t kLearningCopies = 4;
/// Besides codes, a row while it is clustered: its list, distances, order.
constexpr uint64_t kClusterRowBytes = 32;
/// Besides codes, a row while the graph is made: its list with room to grow, then the stored list
/// twice, while recall is measured.
constexpr uint64_t kLinkRowBytes = 48 * sizeof(uint32_t) * 5 / 2 + 32;
constexpr uint64_t kBuildFixedBytes = uint64_t{2} << 20;

/// Held-out queries: their mean recall is known to about 0.2 / sqrt(512) = 0.01.
constexpr size_t kHeldOutMax = 512;
/// One row in this many is held out at most.
constexpr size_t kHeldOutShare = 20;
/// The settings calibration tries, cheapest first.
constexpr std::array<uint32_t, 22> kWidths = {1,  2,  4,  7,   10,  12,  16,  20,  24,  32,   40,
                                              48, 64, 80, 100, 128, 192, 256, 384, 512, 1024, 2048};
/// The numbers of lists it tries.
constexpr std::array<uint32_t, 15> kProbes = {1,  2,  4,  6,  8,   12,  16, 24,
                                              32, 48, 64, 96, 128, 192, 256};
/// A curve that has come this far at the largest k needs no wider walk.
constexpr float kRecallEnough = 0.999F;
/// Distances that differ by this share may be equal but for rounding.
constexpr float kTieShare = 1e-5F;
/// Of the true neighbours in a pool, the share that verification must not miss.
constexpr double kVerifyShare = kLikelyShare;
/// Lists must look at this many times fewer codes than a walk to be preferred. The count is a rough
/// measure: a walk's looks are scattered, a visit's come with centroids to compare.
constexpr double kClearlyFewer = 0.7;
/// The bound of a row that is read in order, both planes, takes this part of the time of a look
/// somewhere: 8 ns against 20 to 25 at 784 and at 100 dimensions.
constexpr double kLooksPerBound = 0.4;
/// One-sided 95 %.
constexpr double kConfidence = 1.645;

/// The same for a mean of n independent values whose spread is estimated from themselves: Student's
/// distribution, by the first terms of its expansion; one value counts as two.
double confidence_of(size_t n) {
  const double tail = (kConfidence * kConfidence * kConfidence + kConfidence) / 4;
  return kConfidence + tail / static_cast<double>(std::max<size_t>(2, n) - 1);
}

/// Neighbours a row may have; the stored width is what the rows really use.
constexpr uint32_t kDegree = 48;
constexpr uint32_t kBuildWidth = 128;
constexpr float kAlpha = 1.15F;

/// Rows of a sample to learn from: with a limit, its copies take no more than half of that.
uint64_t sample_rows_max(uint64_t width, uint64_t memory_max) {
  uint64_t floats = kSampleFloatsMax;
  if (memory_max != 0) {
    floats = std::min<uint64_t>(floats, memory_max / (2 * kLearningCopies * sizeof(float)));
  }
  return std::min<uint64_t>(kSampleRowsMax, std::max<uint64_t>(256, floats / width));
}

double length_of(const float* values, size_t n) {
  return std::sqrt(sum_of_squares(values, n));
}

/// The metric's own space turned into the Euclidean one. Thread safety: immutable.
struct Space {
  Metric metric;
  size_t dimension;
  double longest = 0;  // dot: M

  size_t euclidean_dimension() const { return dimension + (metric == Metric::kDot ? 1 : 0); }
  /// What rounding in `row` or `query` may add to a distance.
  float slack() const {
    if (metric == Metric::kL2) return 0;
    return static_cast<float>(2.1 * kUnitRoundoff * (metric == Metric::kDot ? longest : 1.0));
  }
  bool inside(const float* row) const {
    const double length = length_of(row, dimension);
    // Under cosine it is divided by, whatever it is.
    return metric == Metric::kCosine ? length > 0 && std::isfinite(length) : length <= kLengthMax;
  }
  /// Whether no search returns it.
  bool hides(const float* row) const {
    return metric == Metric::kCosine && length_of(row, dimension) == 0;
  }
  /// Zeros for a row that is outside.
  void row(const float* from, float* to) const {
    if (!inside(from)) {
      std::fill_n(to, euclidean_dimension(), 0.0F);
      return;
    }
    const double length = length_of(from, dimension);
    const double scale = metric == Metric::kCosine ? 1 / length : 1;
    for (size_t k = 0; k < dimension; ++k) to[k] = static_cast<float>(from[k] * scale);
    if (metric == Metric::kDot) {
      to[dimension] =
          static_cast<float>(std::sqrt(std::max(0.0, longest * longest - length * length)));
    }
  }
  /// Whether a walk can answer it as a query: without a direction all rows are equally near.
  bool asks(const float* row) const {
    return metric == Metric::kL2 || length_of(row, dimension) > 0;
  }
  /// A mean of rows, given in the metric's own space.
  void centre(const float* from, float* to) const {
    std::copy_n(from, dimension, to);
    const double length = length_of(from, dimension);
    if (metric == Metric::kDot) {
      to[dimension] =
          static_cast<float>(std::sqrt(std::max(0.0, longest * longest - length * length)));
    }
  }
  void query(const float* from, double length, float* to) const {
    double scale = 1;
    if (metric == Metric::kCosine) scale = 1 / length;
    if (metric == Metric::kDot && length > 0) scale = longest / length;
    for (size_t k = 0; k < dimension; ++k) to[k] = static_cast<float>(from[k] * scale);
    if (metric == Metric::kDot) to[dimension] = 0;
  }
};

struct Header {
  uint32_t metric;
  uint32_t rows;
  uint32_t dimension;
  uint32_t coordinates;
  uint32_t degree;
  uint32_t entries;
  uint32_t curve;
  uint32_t outside;
  uint32_t lists;
  uint32_t list_members;
  uint32_t list_curve;
  std::array<uint32_t, kCalibratedHits.size()> verify;
  float shrink;
  double longest;
};

std::string encode_header(const Header& header) {
  std::string out;
  Encoder encoder(&out);
  encoder.put(header.metric);
  encoder.put(header.rows);
  encoder.put(header.dimension);
  encoder.put(header.coordinates);
  encoder.put(header.degree);
  encoder.put(header.entries);
  encoder.put(header.curve);
  encoder.put(header.outside);
  encoder.put(header.lists);
  encoder.put(header.list_members);
  encoder.put(header.list_curve);
  for (const uint32_t verify : header.verify) encoder.put(verify);
  encoder.put(header.shrink);
  encoder.put(header.longest);
  return out;
}

Result<Header> decode_header(Bytes bytes) {
  Decoder decoder(bytes);
  Header header{};
  header.metric = decoder.get<uint32_t>();
  header.rows = decoder.get<uint32_t>();
  header.dimension = decoder.get<uint32_t>();
  header.coordinates = decoder.get<uint32_t>();
  header.degree = decoder.get<uint32_t>();
  header.entries = decoder.get<uint32_t>();
  header.curve = decoder.get<uint32_t>();
  header.outside = decoder.get<uint32_t>();
  header.lists = decoder.get<uint32_t>();
  header.list_members = decoder.get<uint32_t>();
  header.list_curve = decoder.get<uint32_t>();
  for (uint32_t& verify : header.verify) verify = decoder.get<uint32_t>();
  header.shrink = decoder.get<float>();
  header.longest = decoder.get<double>();
  const bool sane = decoder.finished() && header.metric <= 2 && header.rows >= 1 &&
                    header.degree >= 1 && header.degree <= kDegree && header.entries >= 1 &&
                    header.lists >= 1 && header.lists <= header.rows &&
                    header.list_members <= header.rows && header.shrink >= 0 &&
                    header.shrink <= 1 && header.longest >= 0 && header.longest <= kLengthMax;
  if (!sane) return corruption("vector index: header is malformed");
  return header;
}

template <typename T>
Bytes bytes_of(const T* values, size_t n) {
  return {reinterpret_cast<const std::byte*>(values), n * sizeof(T)};
}

}  // namespace

// ---- building -----------------------------------------------------------------------------------

/// Thread safety: single owner; the pool's threads work inside its calls.
class IndexBuilder {
 public:
  IndexBuilder(const RowSource& rows, Metric metric, uint64_t seed, ThreadPool* pool,
               const Cancelled& cancelled, uint64_t memory_max, const ListCentres& known,
               const SiblingIndexes& siblings)
      : source_(rows),
        known_(known),
        memory_max_(memory_max),
        siblings_(siblings),
        space_{metric, rows.dimension()},
        seed_(seed),
        pool_(*pool),
        cancelled_(cancelled),
        rows_(rows.rows_count()) {}

  Result<BuiltIndex> run() {
    RETURN_IF_ERROR(survey());
    RETURN_IF_ERROR(train());
    layout_.emplace(projection_->coordinates());
    codes_.emplace(layout_->coordinates);
    RETURN_IF_ERROR(encode());
    RETURN_IF_ERROR(choose_held_out());
    GraphParameters parameters;
    parameters.degree = kDegree;
    parameters.build_width = kBuildWidth;
    parameters.alpha = kAlpha;
    parameters.seed = seed_;
    GraphBuild build(codes_->view(), *layout_, planes_.high_bytes(), rows_, parameters, &pool_);
    if (!build.add(members_, cancelled_)) return unavailable("index build was cancelled");
    BuiltIndex out;
    out.ivf_ = std::move(ivf_);
    std::vector<RecallPoint> curve;
    std::vector<RecallPoint> list_curve;
    if (!held_out_.empty()) {
      const BuiltGraph graph = build.finish();
      RETURN_IF_ERROR(find_truth());
      tell_copies();
      curve = calibrate(graph.view());
      list_curve = calibrate_lists(out.ivf_.view());
      // Also ends a calibration that was cut short.
      if (!build.add(held_out_, cancelled_)) return unavailable("index build was cancelled");
    }
    out.graph_ = build.finish();
    out.planes_ = std::move(planes_);
    std::string projection;
    projection_->save(&projection);
    out.small_.emplace_back(
        IndexPart::kHeader,
        encode_header(
            {static_cast<uint32_t>(space_.metric), rows_, static_cast<uint32_t>(space_.dimension),
             static_cast<uint32_t>(layout_->coordinates), out.graph_.degree,
             static_cast<uint32_t>(out.graph_.entries.size()), static_cast<uint32_t>(curve.size()),
             outside_count_, static_cast<uint32_t>(out.ivf_.radii.size()),
             static_cast<uint32_t>(out.ivf_.members.size()),
             static_cast<uint32_t>(list_curve.size()), verify_, shrink_, space_.longest}));
    out.small_.emplace_back(IndexPart::kProjection, std::move(projection));
    out.small_.emplace_back(IndexPart::kCurve,
                            std::string(as_text(bytes_of(curve.data(), curve.size()))));
    out.small_.emplace_back(IndexPart::kIvfCurve,
                            std::string(as_text(bytes_of(list_curve.data(), list_curve.size()))));
    return out;
  }

 private:
  /// Finds the rows that belong outside, and the longest of the others.
  Status survey() {
    std::vector<float> block(kEncodeRows * space_.dimension);
    outside_.assign(rows_, false);
    size_t hidden = 0;
    for (uint32_t first = 0; first < rows_; first += kEncodeRows) {
      const size_t n = std::min<size_t>(kEncodeRows, rows_ - first);
      RETURN_IF_ERROR(source_.read(first, n, block.data()));
      for (size_t i = 0; i < n; ++i) {
        const float* row = block.data() + i * space_.dimension;
        if (!space_.inside(row)) {
          outside_[first + i] = true;
          hidden += space_.hides(row) ? 1 : 0;
          continue;
        }
        members_.push_back(first + static_cast<uint32_t>(i));
        if (space_.metric == Metric::kDot) {
          space_.longest = std::max(space_.longest, length_of(row, space_.dimension));
        }
      }
      if (cancelled_()) return unavailable("index build was cancelled");
    }
    outside_count_ = rows_ - static_cast<uint32_t>(members_.size());
    const size_t shown = outside_count_ - hidden;
    const auto answers = static_cast<double>(rows_ - hidden);
    if (members_.empty() || static_cast<double>(shown) > answers * kOutsideShareMax) {
      return failed_precondition("too many rows without a place in an index: " +
                                 std::to_string(outside_count_));
    }
    return {};
  }

  Status train() {
    const size_t width = space_.euclidean_dimension();
    const size_t inside = members_.size();
    const size_t wanted = std::min<size_t>(inside, sample_rows_max(width, memory_max_));
    // Every row once before any twice: a stride over the rows, from a seeded start.
    Rng rng(seed_);
    Matrix sample(wanted, width);
    std::vector<float> row(space_.dimension);
    const double stride = static_cast<double>(inside) / static_cast<double>(wanted);
    const double start = rng.uniform() * stride;
    for (size_t i = 0; i < wanted; ++i) {
      const size_t at =
          std::min(inside - 1, static_cast<size_t>(start + static_cast<double>(i) * stride));
      RETURN_IF_ERROR(source_.read(members_[at], 1, row.data()));
      space_.row(row.data(), sample.row(i));
    }
    // In random order: the first rows serve as test queries, and rows are in id order.
    for (size_t i = wanted; i > 1; --i) {
      std::swap_ranges(sample.row(i - 1), sample.row(i - 1) + width, sample.row(rng.below(i)));
    }
    projection_ = borrowed_projection(sample);
    if (projection_ == nullptr) {
      projection_ =
          std::make_shared<const Projection>(Projection::train(sample, seed_, cancelled_));
    }
    return cancelled_() ? unavailable("index build was cancelled") : Status();
  }

  /// That of the largest sibling, if it was learnt from as many rows as can be or many more than
  /// there are here.
  std::shared_ptr<const Projection> borrowed_projection(const Matrix& sample) const {
    const VectorIndex* largest = nullptr;
    for (const auto& sibling : siblings_) {
      if (sibling->metric() != space_.metric) continue;
      if (largest == nullptr || sibling->rows_count() > largest->rows_count()) {
        largest = sibling.get();
      }
    }
    const uint64_t most = sample_rows_max(sample.columns, memory_max_);
    if (largest == nullptr || std::min<uint64_t>(largest->rows_count(), most) <
                                  std::min(kBorrowedRowsTimes * rows_, most)) {
      return nullptr;
    }
    const std::shared_ptr<const Projection>& projection = largest->projection();
    const bool suits = projection->dim() == sample.columns && projection->suits(sample);
    return suits ? projection : nullptr;
  }

  Status encode() {
    const size_t width = space_.euclidean_dimension();
    std::vector<float> block(kEncodeRows * space_.dimension);
    std::vector<float> vectors(kEncodeRows * width);
    std::vector<float> y(kEncodeRows * layout_->coordinates);
    std::vector<float> slack(kEncodeRows);
    const auto coordinates = static_cast<std::ptrdiff_t>(layout_->coordinates);
    std::vector<float> all;  // every projected row that is inside, until the lists are made
    all.reserve(members_.size() * layout_->coordinates);
    planes_.high.reserve(size_t{rows_} * layout_->lines);
    planes_.low.reserve(layout_->low_bytes(rows_));
    for (auto* each : {&planes_.step, &planes_.norm, &planes_.error}) each->reserve(rows_);
    for (uint32_t first = 0; first < rows_; first += kEncodeRows) {
      const size_t n = std::min<size_t>(kEncodeRows, rows_ - first);
      RETURN_IF_ERROR(source_.read(first, n, block.data()));
      for (size_t i = 0; i < n; ++i) {
        space_.row(block.data() + i * space_.dimension, vectors.data() + i * width);
      }
      projection_->apply(vectors.data(), n, y.data(), slack.data());
      for (size_t i = 0; i < n; ++i) {
        const auto row = y.begin() + static_cast<std::ptrdiff_t>(i) * coordinates;
        if (!outside_[first + i]) {
          slack[i] += space_.slack();
          all.insert(all.end(), row, row + coordinates);
          continue;
        }
        const bool hidden = space_.hides(block.data() + i * space_.dimension);
        slack[i] = hidden ? 0 : kFarthest;
        if (!hidden) continue;
        std::fill(row, row + coordinates, 0.0F);
        *row = kNowhere;
      }
      encode_planes(*layout_, y.data(), slack.data(), n, &planes_);
      if (cancelled_()) return unavailable("index build was cancelled");
    }
    const std::vector<float> start = projected_centres();
    IvfParameters parameters;
    parameters.seed = seed_;
    parameters.start = start;
    parameters.start_rows = known_.rows;
    ivf_ = build_ivf(all.data(), members_, planes_.high_bytes(), *layout_, parameters, &pool_);
    // Not before: the lists take most memory while they are made.
    append_codes(all);
    return {};
  }

  /// Where the known lists lie in this projection.
  std::vector<float> projected_centres() const {
    const size_t n = known_.rows.size();
    const size_t width = space_.euclidean_dimension();
    std::vector<float> out(n * layout_->coordinates);
    std::vector<float> vector(width);
    for (size_t i = 0; i < n; ++i) {
      space_.centre(known_.vectors.data() + i * space_.dimension, vector.data());
      projection_->apply(vector.data(), 1, out.data() + i * layout_->coordinates, nullptr);
    }
    return out;
  }

  /// The 8-bit codes of all rows; those outside are not asked for theirs.
  void append_codes(const std::vector<float>& all) {
    const std::vector<float> nothing(layout_->coordinates);
    codes_->codes.reserve(rows_ * ByteCodes::stride_of(layout_->coordinates) / sizeof(FloatLine));
    const float* at = all.data();
    for (uint32_t row = 0; row < rows_;) {
      uint32_t end = row;
      while (end < rows_ && !outside_[end]) ++end;
      codes_->append(at, end - row);
      at += (end - row) * layout_->coordinates;
      if (end < rows_) codes_->append(nothing.data(), 1);
      row = end + 1;
    }
  }

  Status choose_held_out() {
    Rng rng(seed_ + 1);
    for (size_t i = members_.size(); i > 1; --i) {
      std::swap(members_[i - 1], members_[rng.below(i)]);
    }
    const size_t held = std::min(kHeldOutMax, members_.size() / kHeldOutShare);
    const size_t first = members_.size() - held;
    std::vector<float> values(space_.dimension);
    size_t kept = first;
    for (size_t i = first; i < members_.size(); ++i) {
      RETURN_IF_ERROR(source_.read(members_[i], 1, values.data()));
      if (space_.asks(values.data())) {
        held_out_.push_back(members_[i]);
      } else {
        members_[kept++] = members_[i];
      }
    }
    members_.resize(kept);
    return {};
  }

  struct Near {
    float distance;
    uint32_t row;
  };
  struct NearLess {
    bool operator()(const Near& a, const Near& b) const {
      return a.distance != b.distance ? a.distance < b.distance : a.row < b.row;
    }
  };

  /// The true neighbours of the held-out rows among the members.
  Status find_truth() {
    const size_t width = space_.euclidean_dimension();
    std::vector<bool> member(rows_, false);
    for (const uint32_t row : members_) member[row] = true;
    held_vectors_.resize(held_out_.size() * width);
    std::vector<float> block(PreparedBatch::kRowsBlock * space_.dimension);
    std::vector<std::span<const float>> queries;
    for (size_t i = 0; i < held_out_.size(); ++i) {
      RETURN_IF_ERROR(source_.read(held_out_[i], 1, block.data()));
      // As it would be asked: under dot that is not the place it has as a row.
      space_.query(block.data(), length_of(block.data(), space_.dimension),
                   held_vectors_.data() + i * width);
      queries.emplace_back(held_vectors_.data() + i * width, width);
      held_norms_.push_back(norm_squared(queries.back().data(), width));
    }
    ASSIGN_OR_RETURN(const PreparedBatch batch, PreparedBatch::make(Metric::kL2, queries));
    constexpr size_t kBlock = PreparedBatch::kRowsBlock;
    std::vector<float> vectors(kBlock * width);
    std::vector<float> norms(kBlock);
    std::vector<float> distances(kBlock * batch.stride());
    std::vector<float> thresholds(batch.stride(), kFarthest);
    std::vector<uint32_t> hits(batch.stride());
    std::vector<TopK<Near, NearLess>> best(held_out_.size(), {kCalibratedHits.back(), NearLess()});
    std::vector<float> left_out(held_out_.size(), kFarthest);  // the nearest row that was met
    for (uint32_t first = 0; first < rows_; first += kBlock) {
      const size_t n = std::min<size_t>(kBlock, rows_ - first);
      RETURN_IF_ERROR(source_.read(first, n, block.data()));
      for (size_t i = 0; i < n; ++i) {
        space_.row(block.data() + i * space_.dimension, vectors.data() + i * width);
        norms[i] = norm_squared(vectors.data() + i * width, width);
      }
      batch.distances(vectors.data(), norms.data(), n, distances.data());
      for (size_t i = 0; i < n; ++i) {
        const uint32_t row = first + static_cast<uint32_t>(i);
        if (!member[row]) continue;
        const size_t found = select_at_most(distances.data() + i * batch.stride(),
                                            thresholds.data(), queries.size(), hits.data());
        for (size_t h = 0; h < found; ++h) {
          const uint32_t q = hits[h];
          const Near near = {distances[i * batch.stride() + q], row};
          const bool full = best[q].full();
          const float last = best[q].threshold();
          best[q].push(near);
          if (full) left_out[q] = std::min(left_out[q], std::max(near.distance, last));
          // A little more, to learn of ties that rounding hides.
          thresholds[q] = best[q].threshold() + tie_slack(q, best[q].threshold());
        }
      }
      if (cancelled_()) return unavailable("index build was cancelled");
    }
    truth_.resize(held_out_.size());
    truth_distances_.resize(held_out_.size());
    tied_.resize(held_out_.size());
    for (size_t q = 0; q < truth_.size(); ++q) {
      std::vector<Near> nearest = best[q].take_sorted();
      RETURN_IF_ERROR(settle_ties(q, left_out[q], &nearest));
      for (const Near& near : nearest) {
        truth_[q].push_back(near.row);
        truth_distances_[q].push_back(near.distance);
      }
    }
    return {};
  }

  /// What rounding in the matrix product may make of equal distances; it grows with the vectors.
  float tie_slack(size_t q, float distance) const {
    return kTieShare * (distance + 0.1F * held_norms_[q]);
  }

  /// Where rows of the truth, or one behind it, are equally near but for rounding, takes exact
  /// distances; then equal rows have equal ones.
  Status settle_ties(size_t q, float left_out, std::vector<Near>* nearest) {
    const auto tie = [&](float nearer, float farther) {
      return farther <= nearer + tie_slack(q, nearer);
    };
    bool ties = !nearest->empty() && tie(nearest->back().distance, left_out);
    for (size_t i = 1; i < nearest->size() && !ties; ++i) {
      ties = tie((*nearest)[i - 1].distance, (*nearest)[i].distance);
    }
    if (!ties) return {};
    const size_t width = space_.euclidean_dimension();
    ASSIGN_OR_RETURN(PreparedQuery exact,
                     PreparedQuery::make(Metric::kL2, {held_vectors_.data() + q * width, width}));
    tied_[q].emplace(std::move(exact));
    for (Near& near : *nearest) {
      ASSIGN_OR_RETURN(near.distance, exact_distance(q, near.row));
    }
    std::sort(nearest->begin(), nearest->end(), NearLess());
    return {};
  }

  Result<float> exact_distance(size_t q, uint32_t row) const {
    thread_local std::vector<float> values;
    thread_local std::vector<float> vector;
    values.resize(space_.dimension);
    vector.resize(space_.euclidean_dimension());
    RETURN_IF_ERROR(source_.read(row, 1, values.data()));
    space_.row(values.data(), vector.data());
    float distance = 0;
    tied_[q]->distances(vector.data(), nullptr, 1, &distance);
    return distance;
  }

  /// Whether a row is one of the k nearest, or as near as the last of them. Rows that cannot be
  /// read are not: reading them again reports the damage.
  bool is_true_neighbour(size_t q, size_t k, uint32_t row) const {
    const std::vector<float>& distances = truth_distances_[q];
    const float last = distances[std::min(k, distances.size()) - 1];
    const std::vector<uint32_t>& truth = truth_[q];
    const size_t place =
        static_cast<size_t>(std::find(truth.begin(), truth.end(), row) - truth.begin());
    if (place < distances.size()) return distances[place] <= last;
    if (!tied_[q] || last < distances.back()) return false;
    const Result<float> distance = exact_distance(q, row);
    return distance && *distance <= last;
  }

  /// For each held-out query and calibrated k: how many of the k true neighbours are among the
  /// first verify[k] candidates of a walk of width ef.
  using Counts = std::array<std::vector<uint32_t>, kCalibratedHits.size()>;

  template <class Visit>
  uint64_t walk_held_out(const GraphView& graph, uint32_t ef, Visit visit) {
    std::atomic<size_t> next{0};
    std::atomic<uint64_t> looks{0};
    pool_.for_each(pool_.helpers_count() + 1, [&](size_t) {
      GraphScratch scratch;
      std::vector<float> y(layout_->coordinates);
      for (;;) {
        const size_t q = next.fetch_add(1);
        if (q >= truth_.size() || cancelled_()) return;
        projection_->apply_fast(held_vectors_.data() + q * space_.euclidean_dimension(), y.data());
        const PlaneQuery query(*layout_, y.data(), 0);
        search_graph(graph, query, *layout_, planes_.high_bytes(), ef, &scratch);
        looks += scratch.looks();
        visit(q, scratch.found());
      }
    });
    return looks;
  }

  /// How deep in the list of candidates true neighbours sit: depths[k] = positions, one per found
  /// neighbour.
  void choose_verify(const GraphView& graph) {
    constexpr uint32_t kDeep = 1024;
    std::array<std::vector<uint32_t>, kCalibratedHits.size()> histogram;
    for (auto& each : histogram) each.assign(kDeep + 1, 0);
    std::vector<float> ratios;  // true over estimated distances of true neighbours
    Mutex mutex;
    walk_held_out(graph, kDeep, [&](size_t q, std::span<const GraphCandidate> found) {
      const std::vector<uint32_t>& truth = truth_[q];
      std::array<size_t, kCalibratedHits.size()> right{};
      MutexLock lock(mutex);
      for (size_t at = 0; at < found.size(); ++at) {
        for (size_t c = 0; c < kCalibratedHits.size(); ++c) {
          const size_t k = std::min<size_t>(kCalibratedHits[c], truth.size());
          if (right[c] == k || !is_true_neighbour(q, k, found[at].row)) continue;
          ++right[c];
          ++histogram[c][at];
        }
        const auto place = std::find(truth.begin(), truth.end(), found[at].row) - truth.begin();
        if (static_cast<size_t>(place) < truth.size() && found[at].distance > 0) {
          ratios.push_back(truth_distances_[q][static_cast<size_t>(place)] / found[at].distance);
        }
      }
    });
    shrink_ = shrink_of(std::move(ratios));
    for (size_t c = 0; c < kCalibratedHits.size(); ++c) {
      uint64_t total = 0;
      for (const uint32_t count : histogram[c]) total += count;
      uint64_t seen = 0;
      uint32_t depth = 0;
      while (depth < kDeep &&
             static_cast<double>(seen) < kVerifyShare * static_cast<double>(total)) {
        seen += histogram[c][depth++];
      }
      verify_[c] = std::max(depth, kCalibratedHits[c]);
    }
  }

  /// The true distance is hardly ever a smaller part of the estimate than this.
  static float shrink_of(std::vector<float> ratios) {
    if (ratios.empty()) return 0;
    const auto at =
        static_cast<std::ptrdiff_t>((1 - kVerifyShare) * static_cast<double>(ratios.size()));
    std::nth_element(ratios.begin(), ratios.begin() + at, ratios.end());
    return std::clamp(ratios[static_cast<size_t>(at)], 0.0F, 1.0F);
  }

  std::vector<RecallPoint> calibrate(const GraphView& graph) {
    choose_verify(graph);
    std::vector<RecallPoint> curve;
    for (const uint32_t ef : kWidths) {
      Counts counts;
      for (auto& each : counts) each.assign(truth_.size(), 0);
      const uint64_t looks =
          walk_held_out(graph, ef, [&](size_t q, std::span<const GraphCandidate> found) {
            count_found(found, q, {}, &counts);
          });
      float least = 1;
      for (size_t c = 0; c < kCalibratedHits.size(); ++c) {
        if (ef < kCalibratedHits[c]) continue;
        curve.push_back(point_of(kCalibratedHits[c], ef, counts[c], looks));
        least = std::min(least, curve.back().recall);
      }
      if (ef >= kCalibratedHits.back() && least >= kRecallEnough) break;
    }
    return curve;
  }

  /// The curve of visiting more and more lists. The lists hold the held-out rows as well, which are
  /// no answers here.
  std::vector<RecallPoint> calibrate_lists(const IvfView& ivf) {
    std::vector<bool> held(rows_, false);
    for (const uint32_t row : held_out_) held[row] = true;
    const size_t width = space_.euclidean_dimension();
    std::vector<RecallPoint> curve;
    for (const uint32_t nprobe : kProbes) {
      if (nprobe > ivf.lists()) break;
      Counts counts;
      for (auto& each : counts) each.assign(truth_.size(), 0);
      std::atomic<size_t> next{0};
      std::atomic<uint64_t> looks{0};
      pool_.for_each(pool_.helpers_count() + 1, [&](size_t) {
        IvfScratch scratch;
        std::vector<float> y(layout_->coordinates);
        for (size_t q = next.fetch_add(1); q < truth_.size(); q = next.fetch_add(1)) {
          projection_->apply_fast(held_vectors_.data() + q * width, y.data());
          const PlaneQuery query(*layout_, y.data(), 0);
          search_ivf(ivf, query, y.data(), *layout_, nprobe, verify_.back(), &scratch);
          looks += scratch.looks();
          count_found(scratch.found(), q, held, &counts);
        }
      });
      float least = 1;
      for (size_t c = 0; c < kCalibratedHits.size(); ++c) {
        curve.push_back(point_of(kCalibratedHits[c], nprobe, counts[c], looks));
        least = std::min(least, curve.back().recall);
      }
      if (least >= kRecallEnough) break;
    }
    return curve;
  }

  /// Counts true neighbours among the first verify[k] of `found` that are not `held` out (empty:
  /// none is), up to k.
  void count_found(std::span<const GraphCandidate> found, size_t q, const std::vector<bool>& held,
                   Counts* counts) const {
    for (size_t c = 0; c < kCalibratedHits.size(); ++c) {
      const size_t k = std::min<size_t>(kCalibratedHits[c], truth_[q].size());
      size_t depth = 0;
      uint32_t right = 0;
      for (const GraphCandidate& candidate : found) {
        if (!held.empty() && held[candidate.row]) continue;
        if (++depth > verify_[c] || right == k) break;
        right += is_true_neighbour(q, k, candidate.row) ? 1 : 0;
      }
      (*counts)[c][q] = right;
    }
  }

  /// Numbers the held-out queries so that those that are equal, but for rounding, have one number.
  void tell_copies() {
    const size_t width = space_.euclidean_dimension();
    std::vector<size_t> leaders;
    for (size_t q = 0; q < held_out_.size(); ++q) {
      const float* query = held_vectors_.data() + q * width;
      const float off = kTieShare * std::sqrt(held_norms_[q]);
      const auto found = std::find_if(leaders.begin(), leaders.end(), [&](size_t leader) {
        return std::equal(query, query + width, held_vectors_.data() + leader * width,
                          [off](float a, float b) { return std::abs(a - b) <= off; });
      });
      query_number_.push_back(static_cast<uint32_t>(found - leaders.begin()));
      if (found == leaders.end()) leaders.push_back(q);
    }
    different_ = leaders.size();
  }

  RecallPoint point_of(uint32_t k, uint32_t ef, const std::vector<uint32_t>& counts,
                       uint64_t looks) const {
    std::vector<double> shares(counts.size());
    double sum = 0;
    for (size_t q = 0; q < counts.size(); ++q) {
      shares[q] = static_cast<double>(counts[q]) /
                  static_cast<double>(std::min<size_t>(k, truth_[q].size()));
      sum += shares[q];
    }
    const auto n = static_cast<double>(counts.size());
    const double mean = sum / n;
    const double low = mean - confidence_of(different_) * error_of(shares, mean, k);
    return {k, ef, static_cast<float>(mean), static_cast<float>(std::max(0.0, low)),
            static_cast<float>(static_cast<double>(looks) / n)};
  }

  /// The standard error of the mean. Equal queries find the same, so it is that of a mean over
  /// clusters of queries; and no less than chance would make of so many hits, which says something
  /// even when all were found.
  double error_of(const std::vector<double>& shares, double mean, uint32_t k) const {
    const auto different = static_cast<double>(different_);
    const double trials = different * static_cast<double>(std::min<size_t>(k, truth_[0].size()));
    const double likely = (mean * trials + 1) / (trials + 2);  // Laplace's rule of succession
    const double chance = std::sqrt(likely * (1 - likely) / trials);
    if (different_ < 2) return chance;
    std::vector<double> off(different_);
    for (size_t q = 0; q < shares.size(); ++q) off[query_number_[q]] += shares[q] - mean;
    double squares = 0;
    for (const double each : off) squares += each * each;
    const double spread =
        std::sqrt(squares * different / (different - 1)) / static_cast<double>(shares.size());
    return std::max(spread, chance);
  }

  const RowSource& source_;
  const ListCentres& known_;
  const uint64_t memory_max_;
  const SiblingIndexes& siblings_;
  Space space_;
  const uint64_t seed_;
  ThreadPool& pool_;
  const Cancelled& cancelled_;
  const uint32_t rows_;
  std::shared_ptr<const Projection> projection_;
  std::optional<PlaneLayout> layout_;
  EncodedPlanes planes_;
  BuiltIvf ivf_;
  std::optional<EncodedBytes> codes_;  // of the projected rows, for building
  std::vector<bool> outside_;
  uint32_t outside_count_ = 0;
  std::vector<uint32_t> members_;
  std::vector<uint32_t> held_out_;
  std::vector<uint32_t> query_number_;  // per held-out query: equal ones have one number
  size_t different_ = 0;                // queries among them
  std::vector<float> held_vectors_;
  std::vector<float> held_norms_;  // squared
  std::vector<std::vector<uint32_t>> truth_;
  std::vector<std::vector<float>> truth_distances_;
  std::vector<std::optional<PreparedQuery>> tied_;  // where others may be as near as the truth
  std::array<uint32_t, kCalibratedHits.size()> verify_ = kCalibratedHits;
  float shrink_ = 0;
};

Result<BuiltIndex> build_index(const RowSource& rows, Metric metric, uint64_t seed,
                               ThreadPool* pool, const Cancelled& cancelled, uint64_t memory_max,
                               const ListCentres& known, const SiblingIndexes& siblings) {
  return IndexBuilder(rows, metric, seed, pool, cancelled, memory_max, known, siblings).run();
}

size_t list_centres_max(uint64_t rows) {
  return kKnownLists * default_ivf_lists(static_cast<uint32_t>(std::min(rows, kRowsMax)));
}

uint64_t build_bytes(uint64_t rows, uint32_t dimension, uint64_t memory_max) {
  // The next coordinate is there under dot; a projection may make fewer, never more.
  const uint64_t width = uint64_t{dimension} + 1;
  const PlaneLayout layout(width);
  const uint64_t floats = width * sizeof(float);
  const uint64_t planes = layout.high_stride() + layout.low_stride() + 3 * sizeof(float);
  const uint64_t bytes = ByteCodes::stride_of(width) + 2 * sizeof(float);
  const uint64_t listed = layout.high_stride() + 2 * sizeof(uint32_t);
  const uint64_t lists = default_ivf_lists(static_cast<uint32_t>(std::min(rows, kRowsMax)));
  const uint64_t sampled = std::min(rows, kClusterRowsPerList * lists);
  const uint64_t learning =
      std::min(rows, sample_rows_max(width, memory_max)) * floats * kLearningCopies;
  const uint64_t clustering = rows * (floats + planes + kClusterRowBytes) + sampled * floats;
  const uint64_t coding = rows * (floats + planes + listed + bytes);
  const uint64_t linking = rows * (planes + listed + bytes + kLinkRowBytes);
  // What is known of lists, and the same projected.
  const uint64_t known = 2 * kKnownLists * lists * floats;
  return kBuildFixedBytes + known + 2 * lists * floats + 3 * width * floats +
         std::max({learning, clustering, coding, linking});
}

Status BuiltIndex::write(const Write& write) const {
  for (const auto& [part, bytes] : small_) RETURN_IF_ERROR(write(part, as_bytes_of(bytes)));
  const size_t rows = planes_.step.size();
  RETURN_IF_ERROR(write(IndexPart::kHigh, bytes_of(planes_.high.data(), planes_.high.size())));
  RETURN_IF_ERROR(write(IndexPart::kLow, bytes_of(planes_.low.data(), planes_.low.size())));
  RETURN_IF_ERROR(write(IndexPart::kStep, bytes_of(planes_.step.data(), rows)));
  RETURN_IF_ERROR(write(IndexPart::kNorm, bytes_of(planes_.norm.data(), rows)));
  RETURN_IF_ERROR(write(IndexPart::kError, bytes_of(planes_.error.data(), rows)));
  RETURN_IF_ERROR(
      write(IndexPart::kNeighbours, bytes_of(graph_.neighbours.data(), graph_.neighbours.size())));
  RETURN_IF_ERROR(
      write(IndexPart::kEntries, bytes_of(graph_.entries.data(), graph_.entries.size())));
  RETURN_IF_ERROR(
      write(IndexPart::kIvfCentroids, bytes_of(ivf_.centroids.data(), ivf_.centroids.size())));
  RETURN_IF_ERROR(write(IndexPart::kIvfCentroidHigh,
                        bytes_of(ivf_.centroid_high.data(), ivf_.centroid_high.size())));
  RETURN_IF_ERROR(write(IndexPart::kIvfRadii, bytes_of(ivf_.radii.data(), ivf_.radii.size())));
  RETURN_IF_ERROR(
      write(IndexPart::kIvfOffsets, bytes_of(ivf_.offsets.data(), ivf_.offsets.size())));
  RETURN_IF_ERROR(
      write(IndexPart::kIvfMembers, bytes_of(ivf_.members.data(), ivf_.members.size())));
  RETURN_IF_ERROR(write(IndexPart::kIvfHigh, bytes_of(ivf_.high.data(), ivf_.high.size())));
  RETURN_IF_ERROR(write(IndexPart::kIvfBits, bytes_of(ivf_.bits.data(), ivf_.bits.size())));
  return write(IndexPart::kIvfDismissed, bytes_of(&ivf_.dismissed, 1));
}

// ---- using --------------------------------------------------------------------------------------

namespace {

/// The part as n values of T. Errors: corruption when it has another size.
template <typename T>
Result<const T*> part_as(const VectorIndex::Read& read, IndexPart part, size_t n) {
  ASSIGN_OR_RETURN(const Bytes bytes, read(part));
  if (bytes.size() != n * sizeof(T)) return corruption("vector index: a part has the wrong size");
  return reinterpret_cast<const T*>(bytes.data());
}

}  // namespace

Result<std::shared_ptr<const VectorIndex>> VectorIndex::open(const Read& read, uint32_t rows,
                                                             uint32_t dimension,
                                                             const SiblingIndexes& siblings) {
  ASSIGN_OR_RETURN(const Bytes header_bytes, read(IndexPart::kHeader));
  ASSIGN_OR_RETURN(const Header header, decode_header(header_bytes));
  if (header.rows != rows || header.dimension != dimension) {
    return corruption("vector index: made for another segment");
  }
  std::shared_ptr<VectorIndex> out(new VectorIndex());
  out->metric_ = static_cast<Metric>(header.metric);
  out->rows_ = rows;
  out->dimension_ = dimension;
  out->longest_ = header.longest;
  out->outside_ = header.outside;
  out->verify_ = header.verify;
  out->shrink_ = header.shrink;
  ASSIGN_OR_RETURN(const Bytes projection, read(IndexPart::kProjection));
  for (const auto& sibling : siblings) {
    if (sibling->projection_->saved_as(projection)) out->projection_ = sibling->projection_;
  }
  if (out->projection_ == nullptr) {
    ASSIGN_OR_RETURN(Projection loaded, Projection::load(projection));
    out->projection_ = std::make_shared<const Projection>(std::move(loaded));
  }
  const Space space{out->metric_, dimension, header.longest};
  if (out->projection_->dim() != space.euclidean_dimension() ||
      out->projection_->coordinates() != header.coordinates) {
    return corruption("vector index: projection of another shape");
  }
  const PlaneLayout layout(header.coordinates);
  out->layout_ = layout;
  const size_t n = rows;
  ASSIGN_OR_RETURN(out->planes_.high,
                   part_as<uint8_t>(read, IndexPart::kHigh, n * layout.high_stride()));
  ASSIGN_OR_RETURN(out->planes_.low, part_as<uint8_t>(read, IndexPart::kLow, layout.low_bytes(n)));
  ASSIGN_OR_RETURN(out->planes_.step, part_as<float>(read, IndexPart::kStep, n));
  ASSIGN_OR_RETURN(out->planes_.norm, part_as<float>(read, IndexPart::kNorm, n));
  ASSIGN_OR_RETURN(out->planes_.error, part_as<float>(read, IndexPart::kError, n));
  ASSIGN_OR_RETURN(const uint32_t* neighbours,
                   part_as<uint32_t>(read, IndexPart::kNeighbours, n * header.degree));
  ASSIGN_OR_RETURN(const uint32_t* entries,
                   part_as<uint32_t>(read, IndexPart::kEntries, header.entries));
  out->graph_ = {neighbours, rows, header.degree, {entries, header.entries}};
  ASSIGN_OR_RETURN(const RecallPoint* curve,
                   part_as<RecallPoint>(read, IndexPart::kCurve, header.curve));
  out->owned_.curve.assign(curve, curve + header.curve);
  out->curve_ = out->owned_.curve;
  RETURN_IF_ERROR(out->open_lists(read, header.lists, header.list_members, header.list_curve));
  RETURN_IF_ERROR(out->check());
  return std::shared_ptr<const VectorIndex>(std::move(out));
}

Result<std::shared_ptr<const VectorIndex>> VectorIndex::encode(const RowSource& rows,
                                                               const VectorIndex& like) {
  constexpr uint32_t kSampled = 256;
  const Space space{like.metric_, like.dimension_, like.longest_};
  const Projection& projection = *like.projection_;
  const uint32_t count = rows.rows_count();
  const size_t width = space.euclidean_dimension();
  // Under dot the form of a row holds for lengths up to the longest of `like` only.
  const auto fits = [&](const float* row) {
    return space.inside(row) &&
           (space.metric != Metric::kDot || length_of(row, space.dimension) <= space.longest);
  };
  std::vector<float> block(kEncodeRows * space.dimension);
  Matrix sample(std::min(kSampled, count), width);
  for (size_t i = 0; i < sample.rows; ++i) {
    RETURN_IF_ERROR(
        rows.read(static_cast<uint32_t>(uint64_t{i} * count / sample.rows), 1, block.data()));
    space.row(block.data(), sample.row(i));
  }
  if (sample.rows == 0 || !projection.suits(sample)) return std::shared_ptr<const VectorIndex>();

  std::shared_ptr<VectorIndex> out(new VectorIndex());
  out->metric_ = like.metric_;
  out->rows_ = count;
  out->dimension_ = like.dimension_;
  out->longest_ = like.longest_;
  out->projection_ = like.projection_;
  out->layout_ = like.layout_;
  out->shrink_ = like.shrink_;
  EncodedPlanes& planes = out->encoded_.emplace();
  std::vector<float> vectors(kEncodeRows * width);
  std::vector<float> y(kEncodeRows * projection.coordinates());
  std::vector<float> slack(kEncodeRows);
  for (uint32_t first = 0; first < count; first += kEncodeRows) {
    const size_t n = std::min<size_t>(kEncodeRows, count - first);
    RETURN_IF_ERROR(rows.read(first, n, block.data()));
    for (size_t i = 0; i < n; ++i) {
      space.row(block.data() + i * space.dimension, vectors.data() + i * width);
    }
    projection.apply(vectors.data(), n, y.data(), slack.data());
    for (size_t i = 0; i < n; ++i) {
      const bool inside = fits(block.data() + i * space.dimension);
      out->outside_ += inside ? 0 : 1;
      slack[i] = inside ? slack[i] + space.slack() : kFarthest;
    }
    encode_planes(*out->layout_, y.data(), slack.data(), n, &planes);
  }
  out->planes_ = planes.codes();
  return std::shared_ptr<const VectorIndex>(std::move(out));
}

uint64_t VectorIndex::memory_bytes() const {
  if (!encoded_) return 0;
  return encoded_->high.capacity() * sizeof(encoded_->high[0]) + encoded_->low.capacity() +
         3 * encoded_->step.capacity() * sizeof(float);
}

Status VectorIndex::open_lists(const Read& read, size_t lists, size_t members, size_t points) {
  const PlaneLayout& layout = *layout_;
  const size_t stride = layout.high_stride();
  ASSIGN_OR_RETURN(const float* centroids,
                   part_as<float>(read, IndexPart::kIvfCentroids, lists * layout.coordinates));
  ASSIGN_OR_RETURN(const uint8_t* centroid_high,
                   part_as<uint8_t>(read, IndexPart::kIvfCentroidHigh, lists * stride));
  ASSIGN_OR_RETURN(const float* radii, part_as<float>(read, IndexPart::kIvfRadii, lists));
  ASSIGN_OR_RETURN(const uint32_t* offsets,
                   part_as<uint32_t>(read, IndexPart::kIvfOffsets, lists + 1));
  ASSIGN_OR_RETURN(const uint32_t* rows, part_as<uint32_t>(read, IndexPart::kIvfMembers, members));
  ASSIGN_OR_RETURN(const uint8_t* high,
                   part_as<uint8_t>(read, IndexPart::kIvfHigh, members * stride));
  owned_.offsets.assign(offsets, offsets + lists + 1);
  ivf_ = {{centroids, lists * layout.coordinates},
          {centroid_high, lists * stride},
          {radii, lists},
          owned_.offsets,
          {rows, members},
          {high, members * stride},
          {}};
  ASSIGN_OR_RETURN(const Bytes bits, read(IndexPart::kIvfBits));
  ivf_.bits = {reinterpret_cast<const uint8_t*>(bits.data()), bits.size()};
  ASSIGN_OR_RETURN(const float* dismissed, part_as<float>(read, IndexPart::kIvfDismissed, 1));
  if (!(*dismissed >= 0 && *dismissed <= 1)) {
    return corruption("vector index: a share is not between 0 and 1");
  }
  ivf_dismissed_ = *dismissed;
  ASSIGN_OR_RETURN(const RecallPoint* curve,
                   part_as<RecallPoint>(read, IndexPart::kIvfCurve, points));
  owned_.list_curve.assign(curve, curve + points);
  ivf_curve_ = owned_.list_curve;
  return IvfView::check(ivf_, layout, rows_);
}

Status VectorIndex::check() const {
  for (size_t i = 0; i < size_t{rows_} * graph_.degree; ++i) {
    const uint32_t row = graph_.neighbours[i];
    if (row >= rows_ && row != kNoNeighbour)
      return corruption("vector index: an edge leads nowhere");
  }
  for (const uint32_t row : graph_.entries) {
    if (row >= rows_) return corruption("vector index: an entry leads nowhere");
  }
  for (const auto curve : {curve_, ivf_curve_}) {
    for (const RecallPoint& point : curve) {
      const bool sane = point.ef >= 1 && point.ef <= kWidths.back() && point.recall >= 0 &&
                        point.recall <= 1 && point.low <= point.recall && point.looks >= 0;
      if (!sane) return corruption("vector index: the curve of recall is malformed");
    }
  }
  return {};
}

uint64_t VectorIndex::hot_bytes() const {
  const uint64_t row = layout_->high_stride() + graph_.degree * sizeof(uint32_t);
  return row * rows_;
}

std::string VectorIndex::codec_reason() const {
  const size_t dim = projection_->dim();
  std::string out =
      std::to_string(layout_->coordinates) + " coordinates of 4 bits, 8 with the low plane";
  if (layout_->coordinates >= dim) {
    out += ": all dimensions, rotated";
  } else {
    const int percent = static_cast<int>(100 * projection_->kept_variance());
    out += ": principal directions of " + std::to_string(dim) + " dimensions, which keep " +
           std::to_string(percent) + " % of the variance and rank true neighbours in front";
  }
  const std::string dismissed = std::to_string(static_cast<int>(100 * ivf_dismissed_));
  return out +
         (ivf_.bits.empty() ? "; lists without 1-bit codes, which would dismiss "
                            : "; lists with 1-bit codes, which dismiss ") +
         dismissed + " % of the rows at a first look";
}

namespace {

/// Which calibrated number of hits stands for k.
size_t calibrated_for(uint32_t k) {
  for (size_t c = 0; c < kCalibratedHits.size(); ++c) {
    if (k <= kCalibratedHits[c]) return c;
  }
  return kCalibratedHits.size() - 1;
}

/// Looks at a setting by calibration: those of the next one measured, or more than the last in
/// proportion.
double looks_of(std::span<const RecallPoint> curve, uint32_t k, uint32_t setting) {
  const uint32_t calibrated = kCalibratedHits[calibrated_for(k)];
  double looks = kFarthest;
  for (const RecallPoint& point : curve) {
    if (point.k != calibrated) continue;
    looks = point.looks;
    if (point.ef >= setting) return looks;
    looks *= static_cast<double>(setting) / point.ef;
  }
  return looks;
}

uint32_t scaled_up(uint32_t value, uint32_t k, uint32_t calibrated) {
  if (k <= calibrated) return value;
  return static_cast<uint32_t>(std::min<uint64_t>(uint64_t{value} * k / calibrated + 1, 1U << 20));
}

}  // namespace

std::span<const RecallPoint> VectorIndex::graph_curve(const MeasuredRecall* measured) const {
  return measured != nullptr && !measured->graph.empty() ? measured->graph : curve_;
}

std::span<const RecallPoint> VectorIndex::list_curve(const MeasuredRecall* measured) const {
  return measured != nullptr && !measured->lists.empty() ? measured->lists : ivf_curve_;
}

std::optional<GraphPlan> VectorIndex::plan(uint32_t k, double target_recall,
                                           const MeasuredRecall* measured) const {
  if (!covers_all()) return std::nullopt;
  const size_t c = calibrated_for(k);
  for (const RecallPoint& point : graph_curve(measured)) {
    if (point.k != kCalibratedHits[c] || point.low < target_recall) continue;
    GraphPlan plan = plan_with_ef(k, scaled_up(std::max(point.ef, k), k, point.k), measured);
    plan.recall = point.recall;
    return plan;
  }
  return std::nullopt;
}

GraphPlan VectorIndex::plan_with_ef(uint32_t k, uint32_t ef, const MeasuredRecall* measured) const {
  const size_t c = calibrated_for(k);
  const uint32_t deepest = verify_[c] - std::min(verify_[c], kCalibratedHits[c]);
  GraphPlan plan;
  plan.ef = std::max(ef, k);
  plan.verify = std::min(plan.ef, scaled_up(k + deepest, k, kCalibratedHits[c]));
  plan.recall = 0;
  // Between two measured settings: the lower one's recall. For more hits than were calibrated, what
  // a walk as wide per hit finds.
  const uint64_t per_hit =
      k <= kCalibratedHits[c] ? plan.ef : uint64_t{plan.ef} * kCalibratedHits[c] / k;
  for (const RecallPoint& point : graph_curve(measured)) {
    if (point.k == kCalibratedHits[c] && point.ef <= per_hit) plan.recall = point.recall;
  }
  return plan;
}

std::optional<GraphPlan> VectorIndex::plan_cheapest(uint32_t k, double target_recall,
                                                    const MeasuredRecall* measured) const {
  // Where audits corrected one curve alone, the other is no better.
  const bool any = measured != nullptr && !(measured->graph.empty() && measured->lists.empty());
  std::optional<GraphPlan> walk;
  std::optional<GraphPlan> visit;
  if (!any || !measured->graph.empty()) walk = plan(k, target_recall, measured);
  if (!any || !measured->lists.empty()) visit = plan_lists(k, target_recall, measured);
  const double walked = walk ? looks_of(curve_, k, walk->ef) : kFarthest;
  const double visited = visit ? looks_of(ivf_curve_, k, visit->nprobe) : kFarthest;
  if (kLooksPerBound * rows_ < std::min(walked, visited)) return std::nullopt;
  return visited < kClearlyFewer * walked ? visit : walk;
}

std::optional<GraphPlan> VectorIndex::plan_lists(uint32_t k, double target_recall,
                                                 const MeasuredRecall* measured) const {
  if (!covers_all()) return std::nullopt;
  const size_t c = calibrated_for(k);
  for (const RecallPoint& point : list_curve(measured)) {
    if (point.k != kCalibratedHits[c] || point.low < target_recall) continue;
    return plan_with_nprobe(k, point.ef, measured);
  }
  return std::nullopt;
}

GraphPlan VectorIndex::plan_with_nprobe(uint32_t k, uint32_t nprobe,
                                        const MeasuredRecall* measured) const {
  GraphPlan plan = plan_with_ef(k, 1);
  const size_t c = calibrated_for(k);
  plan.ef = plan.verify = std::max(k, scaled_up(verify_[c], k, kCalibratedHits[c]));
  plan.nprobe = std::max<uint32_t>(1, std::min(nprobe, lists()));
  plan.recall = plan.nprobe == lists() ? 1.0F : 0.0F;
  for (const RecallPoint& point : list_curve(measured)) {
    if (point.k == kCalibratedHits[c] && point.ef <= nprobe) plan.recall = point.recall;
  }
  return plan;
}

void VectorIndex::add_list_centres(ListCentres* to) const {
  std::vector<float> vector(projection_->dim());
  for (size_t i = 0; i < ivf_.lists(); ++i) {
    projection_->restore(ivf_.centroids.data() + i * layout_->coordinates, vector.data());
    // Under dot without the coordinate that is no one's own.
    to->vectors.insert(to->vectors.end(), vector.begin(),
                       vector.begin() + static_cast<std::ptrdiff_t>(dimension_));
    to->rows.push_back(ivf_.offsets[i + 1] - ivf_.offsets[i]);
  }
}

VectorIndex::Query::Query(const VectorIndex& index, std::span<const float> query, Use use)
    : index_(index) {
  const Space space{index.metric_, index.dimension_, index.longest_};
  length_ = length_of(query.data(), query.size());
  const bool fits = index.metric_ == Metric::kL2 ? length_ <= kLengthMax : length_ > 0;
  if (!fits) return;
  const float* vector = query.data();
  thread_local std::vector<float> euclidean;
  if (index.metric_ != Metric::kL2) {
    euclidean.resize(space.euclidean_dimension());
    space.query(query.data(), length_, euclidean.data());
    vector = euclidean.data();
  }
  y_.resize(index.layout_->coordinates);
  float slack = 0;
  if (use == Use::kBounds) {
    index.projection_->apply(vector, 1, y_.data(), &slack);
  } else {
    index.projection_->apply_fast(vector, y_.data());
  }
  planes_.emplace(*index.layout_, y_.data(), slack + space.slack());
}

VectorIndex::Query::Query(const VectorIndex& index, const Query& asked)
    : index_(index), length_(asked.length_), y_(asked.y_), planes_(asked.planes_) {
  CHECK_TRUE(asked.suits(index));
}

bool VectorIndex::Query::suits(const VectorIndex& index) const {
  // Under dot the lengths of both spaces decide the form, too.
  return index.projection_ == index_.projection_ && index.metric_ == index_.metric_ &&
         index.longest_ == index_.longest_;
}

void VectorIndex::Query::lower_bounds(uint32_t first, size_t n, float reach, float* out) const {
  planes_->lower_bounds(index_.planes_, first, n, reach, out);
}

/// What PreparedQuery computes differs from the truth by at most gamma = depth x u, relative to the
/// sum it rounds: the distance itself under l2, |q| |x| under dot, 1 under cosine.
float VectorIndex::Query::reach(float distance) const {
  if (!(distance < kFarthest)) return kFarthest;
  const size_t depth = kernels().sum_depth(index_.dimension_) + 16;
  const double gamma = 2.1 * static_cast<double>(depth) * kUnitRoundoff;
  const double t = distance;
  double squared = 0;
  switch (index_.metric_) {
    case Metric::kL2:
      // Squares below the smallest float vanish.
      squared = t * (1 + gamma) + 1e-36 * static_cast<double>(index_.dimension_);
      break;
    case Metric::kCosine: squared = 2 + 2 * (t + gamma); break;
    case Metric::kDot: {
      const double m = index_.longest_;
      squared = 2 * m * m + 2 * t * m / length_ + 2 * gamma * m * m;
      squared += 1e-6 * (2 * m * m);
      break;
    }
  }
  // Never below 0, the bound of rows outside: they may be nearer than any inside can be.
  return static_cast<float>(std::max(0.0, squared * (1 + 4 * kUnitRoundoff)));
}

void VectorIndex::Query::estimates(uint32_t first, size_t n, float* out) const {
  const size_t stride = index_.layout_->high_stride();
  planes_->estimate_scan(index_.planes_.high + first * stride, n, out);
}

float VectorIndex::Query::likely_reach(float distance) const {
  const float far = reach(distance);
  return index_.shrink_ > 0 ? far / index_.shrink_ : kFarthest;
}

Status VectorIndex::Query::visit(const GraphPlan& plan, const ListReader& reader,
                                 GraphScratch* scratch) const {
  thread_local IvfScratch lists;
  search_ivf(index_.ivf_, *planes_, y_.data(), *index_.layout_, plan.nprobe, plan.ef, &lists,
             &reader);
  RETURN_IF_ERROR(lists.status());
  scratch->assign(lists.found(), lists.looks());
  return {};
}

void VectorIndex::Query::walk(const GraphPlan& plan, GraphScratch* scratch,
                              const RowsAhead& ahead) const {
  if (plan.nprobe > 0) {
    thread_local IvfScratch lists;
    search_ivf(index_.ivf_, *planes_, y_.data(), *index_.layout_, plan.nprobe, plan.ef, &lists);
    scratch->assign(lists.found(), lists.looks());
    return;
  }
  search_graph(index_.graph_, *planes_, *index_.layout_, index_.planes_.high, plan.ef, scratch,
               ahead);
}

}  // namespace aionbd
