#include "quant/kmeans.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"
#include "distance/metric.h"

namespace aionbd {

namespace {

/// Rows a centroid is trained on: more move it by less than the data's own noise.
constexpr size_t kTrainRows = 64;
/// Rows per centroid that seeds are drawn from.
constexpr size_t kSeedRows = 16;
/// Rounds of Lloyd; the lists' recall changes little after the first few.
constexpr int kRounds = 4;
/// Where all centroids are known from much the same rows: others, drawn from rows, lie far out and
/// take as long as ever to get lists of their length.
constexpr int kRoundsFromStart = 2;
/// Training ends when fewer than this share of the rows changed their cluster.
constexpr double kSettledShare = 0.002;
/// Seeds drawn from one set of distances, and draws tried for them.
constexpr size_t kSeedBatch = 64;
constexpr size_t kSeedDraws = 4 * kSeedBatch;
/// Centroids per matrix product: the distances of a block of rows to them stay in the caches.
constexpr size_t kProductColumns = 240;
/// Rows of one piece of parallel work; fixed, so that sums do not depend on threads.
constexpr size_t kChunk = 1024;
constexpr size_t kClustersChunk = 16;
/// Squared distances below this share of the row's squared norm may be rounding of the product.
constexpr float kRounding = 1e-5F;
/// Rounds of 2-means when a cluster is split, and the least share that goes to either side: it
/// bounds the number of splits whatever the data.
constexpr int kSplitRounds = 3;
constexpr size_t kSplitShare = 4;

struct Rows {
  const float* values;
  size_t n;
  size_t columns;
  std::vector<float> norms;  // squared

  Rows(const float* first, size_t count, size_t width, ThreadPool* pool)
      : values(first), n(count), columns(width), norms(count) {
    pool->for_each((n + kChunk - 1) / kChunk, [&](size_t chunk) {
      const size_t end = std::min(n, (chunk + 1) * kChunk);
      for (size_t i = chunk * kChunk; i < end; ++i) norms[i] = norm_squared(row(i), columns);
    });
  }
  const float* row(size_t i) const { return values + i * columns; }
};

struct Nearest {
  std::vector<uint32_t> centroid;
  std::vector<float> distance;  // squared; 0 where it may be rounding

  explicit Nearest(size_t n) : centroid(n), distance(n, kFarthest) {}
};

/// The least of `values` if it is below *best: sets *best and returns its place, else n.
size_t find_less(const float* values, size_t n, float* best) {
  constexpr size_t kLanes = 16;
  float least[kLanes];
  std::fill(least, least + kLanes, *best);
  size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (size_t l = 0; l < kLanes; ++l) {
      least[l] = values[i + l] < least[l] ? values[i + l] : least[l];
    }
  }
  for (; i < n; ++i) least[0] = values[i] < least[0] ? values[i] : least[0];
  const float all = *std::min_element(least, least + kLanes);
  if (!(all < *best)) return n;
  *best = all;
  return static_cast<size_t>(std::find(values, values + n, all) - values);
}

/// Brings `nearest` up to date with more centroids, numbered from `base`.
void add_centroids(const Rows& rows, std::span<const float> centroids, uint32_t base,
                   ThreadPool* pool, Nearest* nearest) {
  const size_t count = centroids.size() / rows.columns;
  std::vector<PreparedBatch> products;
  for (size_t first = 0; first < count; first += kProductColumns) {
    std::vector<std::span<const float>> columns;
    for (size_t c = first; c < std::min(count, first + kProductColumns); ++c) {
      columns.push_back(centroids.subspan(c * rows.columns, rows.columns));
    }
    auto batch = PreparedBatch::make(Metric::kL2, columns);
    CHECK_TRUE(batch.has_value());
    products.push_back(std::move(batch).value());
  }
  constexpr size_t kBlock = PreparedBatch::kRowsBlock;
  static_assert(kChunk % kBlock == 0);
  pool->for_each((rows.n + kChunk - 1) / kChunk, [&](size_t chunk) {
    std::vector<float> block(kBlock * products.front().stride());
    const size_t end = std::min(rows.n, (chunk + 1) * kChunk);
    for (size_t first = chunk * kChunk; first < end; first += kBlock) {
      const size_t n = std::min(kBlock, end - first);
      for (size_t p = 0; p < products.size(); ++p) {
        const PreparedBatch& product = products[p];
        product.distances(rows.row(first), rows.norms.data() + first, n, block.data());
        for (size_t i = 0; i < n; ++i) {
          float& distance = nearest->distance[first + i];
          const size_t found =
              find_less(block.data() + i * product.stride(), product.queries_count(), &distance);
          if (found == product.queries_count()) continue;
          nearest->centroid[first + i] = static_cast<uint32_t>(base + p * kProductColumns + found);
        }
      }
      for (size_t i = first; i < first + n; ++i) {
        if (nearest->distance[i] <= kRounding * rows.norms[i]) nearest->distance[i] = 0;
      }
    }
  });
}

/// Draws rows with probability proportional to a distance each.
class WeightedDraw {
 public:
  explicit WeightedDraw(std::span<const float> weights) : weights_(weights) {
    for (size_t first = 0; first < weights.size(); first += kChunk) {
      const auto piece = weights.subspan(first, std::min(kChunk, weights.size() - first));
      total_ += std::accumulate(piece.begin(), piece.end(), 0.0);
      sums_.push_back(total_);
    }
  }
  bool possible() const { return total_ > 0 && std::isfinite(total_); }
  /// REQUIRES: possible().
  size_t draw(Rng* rng) const {
    const double at = rng->uniform() * total_;
    const auto chunk =
        static_cast<size_t>(std::upper_bound(sums_.begin(), sums_.end() - 1, at) - sums_.begin());
    double left = at - (chunk == 0 ? 0 : sums_[chunk - 1]);
    size_t last = chunk * kChunk;  // with weight: where rounding may take us beyond the sum
    for (size_t i = chunk * kChunk; i < std::min(weights_.size(), (chunk + 1) * kChunk); ++i) {
      if (weights_[i] <= 0) continue;
      last = i;
      left -= static_cast<double>(weights_[i]);
      if (left < 0) break;
    }
    return last;
  }

 private:
  std::span<const float> weights_;
  double total_ = 0;
  std::vector<double> sums_;
};

float squared_distance(const float* a, const float* b, size_t n) {
  float sum = 0;
  for (size_t k = 0; k < n; ++k) sum += (a[k] - b[k]) * (a[k] - b[k]);
  return sum;
}

/// Up to `wanted` seeds: those given, if any, then rows, which count as often as `weights` says
/// (empty: once each).
std::vector<float> seed_centroids(const Rows& rows, size_t wanted, std::vector<float> seeds,
                                  std::span<const uint32_t> weights, Rng* rng, ThreadPool* pool) {
  const auto take = [&](size_t i) {
    seeds.insert(seeds.end(), rows.row(i), rows.row(i) + rows.columns);
  };
  if (seeds.empty()) take(rng->below(rows.n));
  Nearest nearest(rows.n);
  size_t known = 0;  // seeds that `nearest` knows
  for (size_t count = seeds.size() / rows.columns; count < wanted;
       count = seeds.size() / rows.columns) {
    add_centroids(rows, std::span<const float>(seeds).subspan(known * rows.columns),
                  static_cast<uint32_t>(known), pool, &nearest);
    known = count;
    std::vector<float> chances = nearest.distance;
    for (size_t i = 0; i < weights.size(); ++i) chances[i] *= static_cast<float>(weights[i]);
    const WeightedDraw weighted(chances);
    if (!weighted.possible()) break;
    size_t end = std::min(wanted, known + kSeedBatch);
    for (size_t draws = 0; draws < kSeedDraws && count < end; ++draws) {
      const size_t i = weighted.draw(rng);
      float left = nearest.distance[i];
      for (size_t s = known; s < count; ++s) {
        left = std::min(
            left, squared_distance(rows.row(i), seeds.data() + s * rows.columns, rows.columns));
      }
      if (!rng->chance(static_cast<double>(left) / static_cast<double>(nearest.distance[i]))) {
        continue;
      }
      take(i);
      ++count;
    }
  }
  return seeds;
}

/// The centroids to start from, no more than wanted.
std::vector<float> start_of(const KMeansParameters& parameters, size_t columns, size_t wanted,
                            Rng* rng, ThreadPool* pool) {
  const size_t n = parameters.start.size() / columns;
  if (n <= wanted) return {parameters.start.begin(), parameters.start.end()};
  return seed_centroids(Rows(parameters.start.data(), n, columns, pool), wanted, {},
                        parameters.start_rows, rng, pool);
}

void mean_of(const Rows& rows, std::span<const uint32_t> members, float* out) {
  std::vector<double> sum(rows.columns);
  for (const uint32_t member : members) {
    const float* row = rows.row(member);
    for (size_t k = 0; k < rows.columns; ++k) sum[k] += row[k];
  }
  for (size_t k = 0; k < rows.columns; ++k) {
    out[k] = static_cast<float>(sum[k] / static_cast<double>(members.size()));
  }
}

/// Lists the rows by centroid (counting sort); some lists may be empty, their centroids as before.
void group(const Rows& rows, const Nearest& nearest, ThreadPool* pool, Clusters* out) {
  const size_t count = out->centroids.size() / rows.columns;
  out->offsets.assign(count + 1, 0);
  for (const uint32_t c : nearest.centroid) ++out->offsets[c + 1];
  for (size_t c = 0; c < count; ++c) out->offsets[c + 1] += out->offsets[c];
  std::vector<uint32_t> next(out->offsets.begin(), out->offsets.end() - 1);
  out->members.resize(rows.n);
  for (uint32_t i = 0; i < rows.n; ++i) out->members[next[nearest.centroid[i]]++] = i;
  pool->for_each((count + kClustersChunk - 1) / kClustersChunk, [&](size_t chunk) {
    const size_t end = std::min(count, (chunk + 1) * kClustersChunk);
    for (size_t c = chunk * kClustersChunk; c < end; ++c) {
      if (out->members_of(c).empty()) continue;
      mean_of(rows, out->members_of(c), out->centroids.data() + c * rows.columns);
    }
  });
}

/// Empty clusters begin anew, as seeds do.
void reseed_empty(const Rows& rows, const Nearest& nearest, Rng* rng, Clusters* clusters) {
  const WeightedDraw weighted(nearest.distance);
  if (!weighted.possible()) return;
  for (size_t c = 0; c < clusters->count(); ++c) {
    if (!clusters->members_of(c).empty()) continue;
    std::copy_n(rows.row(weighted.draw(rng)), rows.columns,
                clusters->centroids.data() + c * rows.columns);
  }
}

Clusters train(const Rows& sample, size_t wanted, std::vector<float> start, Rng* rng,
               ThreadPool* pool) {
  Clusters out;
  out.columns = sample.columns;
  const bool all_known = start.size() >= wanted * sample.columns;
  const int rounds = all_known ? kRoundsFromStart : kRounds;
  {
    const Rows some(sample.values, std::min(sample.n, wanted * kSeedRows), sample.columns, pool);
    out.centroids = seed_centroids(some, wanted, std::move(start), {}, rng, pool);
  }
  std::vector<uint32_t> before;
  for (int round = 0; round < rounds; ++round) {
    Nearest nearest(sample.n);
    add_centroids(sample, out.centroids, 0, pool, &nearest);
    group(sample, nearest, pool, &out);
    reseed_empty(sample, nearest, rng, &out);
    size_t changed = before.empty() ? sample.n : 0;
    for (size_t i = 0; i < before.size(); ++i) changed += before[i] != nearest.centroid[i] ? 1 : 0;
    if (static_cast<double>(changed) <= kSettledShare * static_cast<double>(sample.n)) break;
    before = std::move(nearest.centroid);
  }
  return out;
}

/// `wanted` different rows in random order.
std::vector<float> draw_sample(const float* rows, size_t n, size_t columns, size_t wanted,
                               Rng* rng) {
  std::vector<uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0U);
  std::vector<float> out(wanted * columns);
  for (size_t i = 0; i < wanted; ++i) {
    std::swap(order[i], order[i + rng->below(n - i)]);
    std::copy_n(rows + size_t{order[i]} * columns, columns, out.data() + i * columns);
  }
  return out;
}

/// Halves the members by 2-means: reorders them, returns where the second part begins. Equal rows
/// are divided by their numbers. REQUIRES: at least two members.
size_t halve(const Rows& rows, std::span<uint32_t> members, Rng* rng) {
  struct Side {
    float preference;  // below 0: nearer to the first centroid
    uint32_t row;
  };
  const size_t n = members.size();
  const size_t least = std::max<size_t>(1, n / kSplitShare);
  std::vector<float> first(rows.columns);
  std::vector<float> second(rows.columns);
  // Two random members are as good a start as any where only their direction matters.
  const size_t a = rng->below(n);
  const size_t b = (a + 1 + rng->below(n - 1)) % n;
  std::copy_n(rows.row(members[a]), rows.columns, first.data());
  std::copy_n(rows.row(members[b]), rows.columns, second.data());
  std::vector<Side> sides(n);
  size_t cut = 0;
  for (int round = 0; round < kSplitRounds; ++round) {
    for (size_t i = 0; i < n; ++i) {
      const float* row = rows.row(members[i]);
      const float preference = squared_distance(row, first.data(), rows.columns) -
                               squared_distance(row, second.data(), rows.columns);
      sides[i] = {std::isnan(preference) ? 0 : preference, members[i]};
    }
    std::sort(sides.begin(), sides.end(), [](const Side& x, const Side& y) {
      return x.preference != y.preference ? x.preference < y.preference : x.row < y.row;
    });
    cut = 0;
    while (cut < n && sides[cut].preference < 0) ++cut;
    cut = std::clamp(cut, least, n - least);
    for (size_t i = 0; i < n; ++i) members[i] = sides[i].row;
    mean_of(rows, members.first(cut), first.data());
    mean_of(rows, members.subspan(cut), second.data());
  }
  std::sort(members.begin(), members.begin() + static_cast<std::ptrdiff_t>(cut));
  std::sort(members.begin() + static_cast<std::ptrdiff_t>(cut), members.end());
  return cut;
}

/// Drops empty clusters and splits those longer than `longest`.
Clusters bounded(const Rows& rows, Clusters clusters, size_t longest, Rng* rng) {
  Clusters out;
  out.columns = rows.columns;
  out.members = std::move(clusters.members);
  out.offsets = {0};
  for (size_t c = 0; c < clusters.count(); ++c) {
    const uint32_t end = clusters.offsets[c + 1];
    if (end == clusters.offsets[c]) continue;
    if (end - clusters.offsets[c] <= longest) {
      out.offsets.push_back(end);
      const float* centroid = clusters.centroids.data() + c * rows.columns;
      out.centroids.insert(out.centroids.end(), centroid, centroid + rows.columns);
      continue;
    }
    std::vector<uint32_t> ends = {end};  // of the parts not done yet, the first one last
    while (!ends.empty()) {
      const uint32_t begin = out.offsets.back();
      const std::span<uint32_t> part(out.members.data() + begin, ends.back() - begin);
      if (part.size() > longest) {
        ends.push_back(begin + static_cast<uint32_t>(halve(rows, part, rng)));
        continue;
      }
      out.offsets.push_back(ends.back());
      out.centroids.resize(out.centroids.size() + rows.columns);
      mean_of(rows, part, out.centroids.data() + out.centroids.size() - rows.columns);
      ends.pop_back();
    }
  }
  return out;
}

}  // namespace

Clusters cluster_rows(const float* rows, size_t n, size_t columns,
                      const KMeansParameters& parameters, ThreadPool* pool) {
  CHECK_GE(parameters.clusters, 1U);
  CHECK_GE(columns, 1U);
  CHECK_LE(n, size_t{UINT32_MAX});
  CHECK_EQ(parameters.start.size(), parameters.start_rows.size() * columns);
  Clusters out;
  out.columns = columns;
  out.offsets = {0};
  if (n == 0) return out;
  Rng rng(parameters.seed);
  const size_t wanted = std::min<size_t>(n, parameters.clusters);
  {
    const size_t sample_count = std::min(n, wanted * kTrainRows);
    const std::vector<float> values = draw_sample(rows, n, columns, sample_count, &rng);
    std::vector<float> start = start_of(parameters, columns, wanted, &rng, pool);
    out = train(Rows(values.data(), sample_count, columns, pool), wanted, std::move(start), &rng,
                pool);
  }
  const Rows all(rows, n, columns, pool);
  Nearest nearest(n);
  add_centroids(all, out.centroids, 0, pool, &nearest);
  group(all, nearest, pool, &out);
  const double mean = static_cast<double>(n) / static_cast<double>(wanted);
  const auto longest = static_cast<size_t>(std::max(1.0, parameters.longest_share) * mean);
  return bounded(all, std::move(out), std::max<size_t>(1, longest), &rng);
}

}  // namespace aionbd
