#include "index/ivf.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "base/check.h"
#include "quant/kmeans.h"

namespace aionbd {

namespace {

/// Fewer rows than this per list, and ranking the lists costs more than scanning them.
constexpr uint32_t kMeanLengthMin = 64;
/// Measured on 60,000 x 112 and 340,000 x 100: from 1 to 4, searches of equal recall take the same
/// time within a quarter, but the lists of 4 take over three times as long to build as those of 2.
constexpr double kListsPerRoot = 2;
/// Rows estimated per call: their distances stay in the first-level cache.
constexpr size_t kScanRows = 256;
/// Lines of the next list asked for while one is scanned: what the CPU's own prefetching misses
/// before it has seen the stream.
constexpr size_t kPrefetchLines = 16;
/// More than the roundings of a computed distance, relative.
constexpr double kRadiusSlack = 1e-4;
constexpr size_t kListsChunk = 16;

/// 1-bit codes pay where scanning them and then reading the 4-bit codes of the rows not dismissed
/// takes less than this share of what scanning all 4-bit codes takes. Costs are counted in cache
/// lines, so that the choice depends on the data alone; a line read here and there counts more.
constexpr double kBitsWorth = 0.8;
constexpr double kScatteredLine = 3;
/// How far below its estimate a row is taken to be at a first look. What is lost by less than
/// kBitDeviations is little, since the rows wanted are the first of those kept: on 60,000 x 784 and
/// 340,000 x 100, recall of 10 falls by 0.0000 with 1.9, by 0.0003 with 1.5 and by 0.002 with 0.8,
/// while rows read fall from 11 % to 8 % and 5 %.
constexpr float kFirstLookDeviations = 1.5F;
/// The searches that find out: the number of them, the share of the lists each visits and the
/// fewest lists, the rows it keeps (about what verifying 10 hits takes).
constexpr size_t kTrials = 128;
constexpr size_t kTrialListsShare = 32;
constexpr size_t kTrialListsLeast = 16;
constexpr size_t kTrialKeep = 50;
constexpr size_t kRowsChunk = 4096;

bool nearer(const GraphCandidate& a, const GraphCandidate& b) {
  return a.distance != b.distance ? a.distance < b.distance : a.row < b.row;
}

/// The `keep` best of many, gathered in twice the room: what is too far is thrown out only when the
/// room is full, which costs a constant per item that enters. keep 0: takes nothing, and nothing
/// must be added. Thread safety: single owner.
class Nearest {
 public:
  Nearest(size_t keep, std::vector<GraphCandidate>* room) : keep_(keep), room_(*room) {
    room_.clear();
  }
  /// Nothing above this can enter.
  float threshold() const { return threshold_; }

  void add(float distance, uint32_t row) {
    room_.push_back({distance, row});
    if (room_.size() == keep_ || room_.size() >= 2 * keep_) shrink();
  }
  void finish() {
    if (room_.size() > keep_) shrink();
    std::sort(room_.begin(), room_.end(), nearer);
  }

 private:
  void shrink() {
    const auto last = room_.begin() + static_cast<std::ptrdiff_t>(keep_ - 1);
    std::nth_element(room_.begin(), last, room_.end(), nearer);
    threshold_ = last->distance;
    room_.resize(keep_);
  }

  const size_t keep_;
  std::vector<GraphCandidate>& room_;
  float threshold_ = kFarthest;
};

/// Estimates n consecutive rows of codes; those near enough enter, as `name_of(i)`.
template <class NameOf>
void scan(const PlaneQuery& query, const uint8_t* high, size_t stride, size_t n, NameOf name_of,
          Nearest* best) {
  float distances[kScanRows];
  uint32_t chosen[kScanRows];
  for (size_t first = 0; first < n; first += kScanRows) {
    const size_t count = std::min(kScanRows, n - first);
    query.estimate_scan(high + first * stride, count, distances);
    const size_t near = select_at_most(distances, best->threshold(), count, chosen);
    for (size_t i = 0; i < near; ++i) {
      // The threshold may have fallen since.
      if (!(distances[chosen[i]] <= best->threshold())) continue;
      best->add(distances[chosen[i]], name_of(first + chosen[i]));
    }
  }
}

float radius_of(const float* centroid, const float* y, size_t coordinates,
                std::span<const uint32_t> members) {
  const auto query = PreparedQuery::make(Metric::kL2, {centroid, coordinates});
  CHECK_TRUE(query.has_value());
  float largest = 0;
  for (const uint32_t member : members) {
    float distance = 0;
    query->distances(y + size_t{member} * coordinates, nullptr, 1, &distance);
    largest = std::max(largest, distance);
  }
  return static_cast<float>(std::sqrt(static_cast<double>(largest)) * (1 + kRadiusSlack));
}

std::span<const uint8_t> bytes_of(const AlignedFloats& lines) {
  return {reinterpret_cast<const uint8_t*>(lines.data()), lines.size() * sizeof(FloatLine)};
}

}  // namespace

uint32_t default_ivf_lists(uint32_t rows) {
  const auto by_root = static_cast<uint32_t>(kListsPerRoot * std::sqrt(static_cast<double>(rows)));
  return std::max(1U, std::min(by_root, rows / kMeanLengthMin));
}

IvfView BuiltIvf::view() const {
  return {centroids, bytes_of(centroid_high), radii,         offsets,
          members,   bytes_of(high),          bytes_of(bits)};
}

Status IvfView::check(const IvfView& view, const PlaneLayout& layout, uint32_t rows) {
  const size_t lists = view.radii.size();
  const size_t stride = layout.high_stride();
  const bool sizes = lists <= view.members.size() && view.members.size() <= rows &&
                     view.centroids.size() == lists * layout.coordinates &&
                     view.centroid_high.size() == lists * stride &&
                     view.offsets.size() == lists + 1 &&
                     view.high.size() == view.members.size() * stride;
  if (!sizes) return corruption("ivf: sizes do not fit");
  const auto aligned = [](const uint8_t* at) {
    return reinterpret_cast<uintptr_t>(at) % sizeof(FloatLine) == 0;
  };
  const size_t block = BitLayout(layout.coordinates).block_bytes();
  if (!view.bits.empty() && view.bits.size() != view.bit_blocks() * block) {
    return corruption("ivf: 1-bit codes have another size");
  }
  if (!aligned(view.high.data()) || !aligned(view.centroid_high.data()) ||
      (!view.bits.empty() && !aligned(view.bits.data()))) {
    return corruption("ivf: codes are not aligned");
  }
  if (view.offsets.front() != 0 || view.offsets.back() != view.members.size() ||
      !std::is_sorted(view.offsets.begin(), view.offsets.end())) {
    return corruption("ivf: lists do not cover the members");
  }
  std::vector<bool> met(rows);
  for (const uint32_t row : view.members) {
    if (row >= rows || met[row]) {
      return corruption("ivf: a list names a row that is not there, or twice: " +
                        std::to_string(row));
    }
    met[row] = true;
  }
  const auto finite = [](float value) { return std::isfinite(value); };
  const auto usable = [](float value) { return std::isfinite(value) && value >= 0; };
  if (!std::all_of(view.centroids.begin(), view.centroids.end(), finite) ||
      !std::all_of(view.radii.begin(), view.radii.end(), usable)) {
    return corruption("ivf: a centroid or radius is not a number");
  }
  return Status();
}

namespace {

void encode_lists(const float* y, const BitLayout& layout, ThreadPool* pool, BuiltIvf* out) {
  const size_t lists = out->radii.size();
  const size_t block = layout.block_bytes();
  out->bits.resize((out->view().bit_blocks() * block) / sizeof(FloatLine));
  const IvfView view = out->view();
  auto* to = reinterpret_cast<uint8_t*>(out->bits.data());
  pool->for_each((lists + kListsChunk - 1) / kListsChunk, [&](size_t chunk) {
    for (size_t c = chunk * kListsChunk; c < std::min(lists, (chunk + 1) * kListsChunk); ++c) {
      const auto members =
          view.members.subspan(view.offsets[c], view.offsets[c + 1] - view.offsets[c]);
      const float* centroid = view.centroids.data() + c * layout.coordinates;
      uint8_t* at = to + view.first_bit_block(c) * block;
      for (size_t first = 0; first < members.size(); first += kBitRows) {
        const size_t n = std::min(kBitRows, members.size() - first);
        encode_bits(layout, y, members.subspan(first, n), centroid, at);
        at += block;
      }
    }
  });
}

/// The share of rows scanned whose 4-bit code searches had to read, given 1-bit codes. Members
/// serve as queries.
double share_read(const BuiltIvf& ivf, const float* y, const PlaneLayout& layout,
                  ThreadPool* pool) {
  const IvfView view = ivf.view();
  const size_t trials = std::min(kTrials, view.members.size());
  std::vector<size_t> scanned(trials);
  std::vector<size_t> read(trials);
  pool->for_each(trials, [&](size_t i) {
    const uint32_t row = view.members[i * view.members.size() / trials];
    const float* query = y + size_t{row} * layout.coordinates;
    IvfScratch scratch;
    search_ivf(view, PlaneQuery(layout, query, 0), query, layout,
               std::max(kTrialListsLeast, view.lists() / kTrialListsShare), kTrialKeep, &scratch);
    scanned[i] = scratch.looks() - view.lists();
    read[i] = scratch.second_looks();
  });
  const auto total = std::accumulate(scanned.begin(), scanned.end(), size_t{0});
  return static_cast<double>(std::accumulate(read.begin(), read.end(), size_t{0})) /
         static_cast<double>(std::max<size_t>(1, total));
}

/// Gives the lists 1-bit codes where they pay.
void add_bits(const float* y, const PlaneLayout& layout, FirstLook first_look, ThreadPool* pool,
              BuiltIvf* out) {
  if (first_look == FirstLook::kNever) return;
  const BitLayout bits(layout.coordinates);
  encode_lists(y, bits, pool, out);
  const double read = share_read(*out, y, layout, pool);
  out->dismissed = static_cast<float>(1 - read);
  const auto lines = static_cast<double>(layout.lines);
  const double first = static_cast<double>(bits.block_bytes()) / (kBitRows * sizeof(FloatLine));
  const bool pays = first + read * lines * kScatteredLine <= kBitsWorth * lines;
  if (!pays && first_look != FirstLook::kAlways) out->bits = {};
}

}  // namespace

BuiltIvf build_ivf(const float* y, std::span<const uint32_t> ids, const uint8_t* high,
                   const PlaneLayout& layout, const IvfParameters& parameters, ThreadPool* pool) {
  const auto rows = static_cast<uint32_t>(ids.size());
  KMeansParameters kmeans;
  kmeans.clusters = parameters.lists == 0 ? default_ivf_lists(rows) : parameters.lists;
  kmeans.longest_share = kIvfLongestShare;
  kmeans.seed = parameters.seed;
  kmeans.start = parameters.start;
  kmeans.start_rows = parameters.start_rows;
  Clusters clusters = cluster_rows(y, rows, layout.coordinates, kmeans, pool);

  BuiltIvf out;
  const size_t lists = clusters.count();
  out.radii.resize(lists);
  pool->for_each((lists + kListsChunk - 1) / kListsChunk, [&](size_t chunk) {
    for (size_t c = chunk * kListsChunk; c < std::min(lists, (chunk + 1) * kListsChunk); ++c) {
      out.radii[c] = radius_of(clusters.centroids.data() + c * layout.coordinates, y,
                               layout.coordinates, clusters.members_of(c));
    }
  });
  out.centroids = std::move(clusters.centroids);
  out.offsets = std::move(clusters.offsets);
  out.members = std::move(clusters.members);
  EncodedPlanes codes;
  encode_planes(layout, out.centroids.data(), std::vector<float>(lists).data(), lists, &codes);
  out.centroid_high = std::move(codes.high);
  const size_t n = out.members.size();
  out.high.resize(n * layout.lines);
  auto* to = reinterpret_cast<uint8_t*>(out.high.data());
  pool->for_each((n + kRowsChunk - 1) / kRowsChunk, [&](size_t chunk) {
    for (size_t i = chunk * kRowsChunk; i < std::min(n, (chunk + 1) * kRowsChunk); ++i) {
      std::copy_n(high + size_t{ids[out.members[i]]} * layout.high_stride(), layout.high_stride(),
                  to + i * layout.high_stride());
    }
  });
  add_bits(y, layout, parameters.first_look, pool, &out);
  for (uint32_t& member : out.members) member = ids[member];  // until here a place in y
  return out;
}

/// One search. Thread safety: single owner.
class IvfSearch {
 public:
  IvfSearch(const IvfView& ivf, const PlaneQuery& query, const float* y, const PlaneLayout& layout,
            IvfScratch* scratch, const ListReader* reader)
      : ivf_(ivf),
        query_(query),
        y_(y),
        layout_(layout),
        bit_layout_(layout.coordinates),
        s_(*scratch),
        reader_(reader) {}

  void run(size_t nprobe, size_t keep) {
    Nearest lists(nprobe, &s_.lists_);
    scan(
        query_, ivf_.centroid_high.data(), layout_.high_stride(), ivf_.lists(),
        [](size_t i) { return static_cast<uint32_t>(i); }, &lists);
    lists.finish();
    s_.looks_ = ivf_.lists();
    s_.second_looks_ = 0;
    s_.scanned_lists_ = 0;
    s_.status_ = Status();
    const auto centre = PreparedQuery::make(Metric::kL2, {y_, layout_.coordinates});
    CHECK_TRUE(centre.has_value());
    std::optional<BitQuery> bit_query;
    if (!ivf_.bits.empty() && reader_ == nullptr && s_.lists_.size() > 1) {
      bit_query.emplace(bit_layout_, y_);
    }
    Nearest best(keep, &s_.found_);
    for (size_t i = 0; i < s_.lists_.size(); ++i) {
      if (reader_ == nullptr && i + 1 < s_.lists_.size()) {
        prefetch(s_.lists_[i + 1].row, bit_query.has_value() && i > 0);
      }
      const uint32_t list = s_.lists_[i].row;
      const bool full = best.threshold() < kFarthest;
      const float distance = full ? distance_to(*centre, list) : 0;
      if (full && beyond(distance, list, best.threshold())) continue;
      const uint32_t first = ivf_.offsets[list];
      const uint32_t n = ivf_.offsets[list + 1] - first;
      const uint8_t* high = ivf_.high.data() + first * layout_.high_stride();
      const uint32_t* members = ivf_.members.data() + first;
      if (reader_ != nullptr) {
        s_.status_ = copy_list(first, n);
        if (!s_.status_.ok()) break;
        high = reinterpret_cast<const uint8_t*>(s_.copy_.high.data());
        members = s_.copy_.members.data();
      }
      s_.looks_ += n;
      if (full && bit_query.has_value()) {
        s_.second_looks_ += scan_bits(*bit_query, list, distance, &best);
      } else {
        scan(
            query_, high, layout_.high_stride(), n, [&](size_t at) { return members[at]; }, &best);
        s_.second_looks_ += n;
      }
      ++s_.scanned_lists_;
    }
    best.finish();
  }

 private:
  /// The start of a list's codes, and its members' names, which are read here and there.
  void prefetch(uint32_t list, bool bits) const {
    const uint32_t first = ivf_.offsets[list];
    const size_t n = ivf_.offsets[list + 1] - first;
    prefetch_lines(ivf_.centroids.data() + list * layout_.coordinates,
                   layout_.coordinates * sizeof(float));
    if (bits) {
      const size_t block = bit_layout_.block_bytes();
      prefetch_lines(ivf_.bits.data() + ivf_.first_bit_block(list) * block,
                     std::min(n / kBitRows * block, kPrefetchLines * sizeof(FloatLine)));
      return;
    }
    prefetch_lines(ivf_.high.data() + first * layout_.high_stride(),
                   std::min(n * layout_.high_stride(), kPrefetchLines * sizeof(FloatLine)));
    prefetch_lines(ivf_.members.data() + first, n * sizeof(uint32_t));
  }
  static void prefetch_lines(const void* start, size_t bytes) {
    const char* at = static_cast<const char*>(start);
    for (size_t i = 0; i < bytes; i += sizeof(FloatLine)) __builtin_prefetch(at + i);
  }

  Status copy_list(size_t first, size_t n) {
    s_.copy_.members.resize(n);
    s_.copy_.high.resize(n * layout_.lines);
    auto* high = reinterpret_cast<uint8_t*>(s_.copy_.high.data());
    return reader_->read(first, n, s_.copy_.members.data(), high);
  }

  /// As `scan` of the list whose centroid is at `distance`, after a first look at the rows' 1-bit
  /// codes: 4-bit codes are read of those whose lower estimate is within the threshold. Returns how
  /// many that were.
  size_t scan_bits(const BitQuery& bit_query, uint32_t list, float distance, Nearest* best) const {
    static_assert(kScanRows % kBitRows == 0);
    const size_t block = bit_layout_.block_bytes();
    const size_t stride = layout_.high_stride();
    const uint8_t* bits = ivf_.bits.data() + ivf_.first_bit_block(list) * block;
    const size_t end = ivf_.offsets[list + 1];
    float distances[kScanRows];
    uint32_t chosen[kScanRows];
    size_t looks = 0;
    for (size_t first = ivf_.offsets[list]; first < end; first += kScanRows) {
      const size_t count = std::min(kScanRows, end - first);
      bit_query.lower_estimates(bits, (count + kBitRows - 1) / kBitRows, distance, distances,
                                kFirstLookDeviations);
      bits += kScanRows / kBitRows * block;
      const size_t near = select_at_most(distances, best->threshold(), count, chosen);
      const uint8_t* high = ivf_.high.data() + first * stride;
      for (size_t i = 0; i < near; ++i) prefetch_lines(high + chosen[i] * stride, stride);
      query_.estimate(high, chosen, near, distances);
      for (size_t i = 0; i < near; ++i) {
        if (!(distances[i] <= best->threshold())) continue;
        best->add(distances[i], ivf_.members[first + chosen[i]]);
      }
      looks += near;
    }
    return looks;
  }

  float distance_to(const PreparedQuery& centre, uint32_t list) const {
    float distance = 0;
    centre.distances(ivf_.centroids.data() + list * layout_.coordinates, nullptr, 1, &distance);
    return distance;
  }
  /// Whether every member is farther than the squared distance `reach`, its centroid being at
  /// `distance`.
  bool beyond(float distance, uint32_t list, float reach) const {
    const float nearest = std::sqrt(distance) - ivf_.radii[list];
    return nearest > 0 && nearest * nearest > reach;
  }

  const IvfView& ivf_;
  const PlaneQuery& query_;
  const float* y_;
  const PlaneLayout& layout_;
  const BitLayout bit_layout_;
  IvfScratch& s_;
  const ListReader* const reader_;
};

void search_ivf(const IvfView& ivf, const PlaneQuery& query, const float* y,
                const PlaneLayout& layout, size_t nprobe, size_t keep, IvfScratch* scratch,
                const ListReader* reader) {
  CHECK_GE(nprobe, 1U);
  CHECK_GE(keep, 1U);
  IvfSearch(ivf, query, y, layout, scratch, reader)
      .run(std::min(nprobe, ivf.lists()), std::min(keep, ivf.members.size()));
}

}  // namespace aionbd
