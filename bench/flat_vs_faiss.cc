// Exact search on Fashion-MNIST, one thread, in one run:
//   scan    one query over all rows, against the time of reading the rows once (a wide sum, plain
//           and prefetching; the floor is the better one), rows on the heap and in a mapped file;
//   batch   1,000 queries with top 10, against FAISS IndexFlat on the same data.
// Repetitions of the two sides alternate and medians are compared, so that a drift of the machine
// meets both; time is the thread's CPU time, so that another process's turn on the core is
// nobody's. The answers of the two sides are compared too.
//
//   taskset -c 0 env OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 flat_vs_faiss [l2|dot|cosine]
//   [repeats]
//
// On AMD CPUs OPENBLAS_CORETYPE=SKYLAKEX gives FAISS the AVX-512 kernels it would not choose there.
#include <faiss/IndexFlat.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "distance/metric.h"

namespace {

using aionbd::Metric;
using aionbd::PreparedBatch;
using aionbd::PreparedQuery;

constexpr size_t kTopK = 10;
constexpr size_t kBatchQueries = 1000;
constexpr const char* kDataFolder = "/usr/share/datasets/fashion-mnist/";

struct Matrix {
  size_t rows = 0;
  size_t dim = 0;
  std::vector<float> values;
  const float* row(size_t i) const { return values.data() + i * dim; }
};

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "flat_vs_faiss: %s\n", what.c_str());
  std::exit(1);
}

uint32_t big_endian(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | uint32_t{p[3]};
}

// IDX: magic, count, height, width, then one byte per pixel.
Matrix read_images(const std::string& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  if (file == nullptr) fail("cannot open " + path + " (package dataset-fashion-mnist)");
  uint8_t header[16];
  if (gzread(file, header, sizeof(header)) != sizeof(header)) fail("short header in " + path);
  Matrix out;
  out.rows = big_endian(header + 4);
  out.dim = size_t{big_endian(header + 8)} * big_endian(header + 12);
  std::vector<uint8_t> pixels(out.rows * out.dim);
  const auto size = static_cast<unsigned>(pixels.size());
  if (gzread(file, pixels.data(), size) != static_cast<int>(size)) fail("short data in " + path);
  gzclose(file);
  out.values.assign(pixels.begin(), pixels.end());
  return out;
}

// A read-only mapping of a file with the same bytes: 4 KiB pages from the page cache.
class MappedCopy {
 public:
  explicit MappedCopy(const Matrix& matrix) : size_(matrix.values.size() * sizeof(float)) {
    std::FILE* file = std::tmpfile();
    if (file == nullptr || std::fwrite(matrix.values.data(), 1, size_, file) != size_ ||
        std::fflush(file) != 0) {
      fail("cannot write the temporary file to map");
    }
    base_ = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fileno(file), 0);
    if (base_ == MAP_FAILED) fail("cannot map the temporary file");
    std::fclose(file);
  }
  ~MappedCopy() { munmap(base_, size_); }
  MappedCopy(const MappedCopy&) = delete;
  MappedCopy& operator=(const MappedCopy&) = delete;
  const float* rows() const { return static_cast<const float*>(base_); }

 private:
  size_t size_;
  void* base_;
};

double thread_seconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double seconds_of(const std::function<void()>& work) {
  const double start = thread_seconds();
  work();
  return thread_seconds() - start;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Median seconds of alternating workloads, after one round to warm up.
std::vector<double> compare(int repeats, const std::vector<std::function<void()>>& workloads) {
  std::vector<std::vector<double>> seconds(workloads.size());
  for (const auto& work : workloads) work();
  for (int i = 0; i < repeats; ++i) {
    for (size_t w = 0; w < workloads.size(); ++w) seconds[w].push_back(seconds_of(workloads[w]));
  }
  std::vector<double> medians;
  for (auto& each : seconds) medians.push_back(median(each));
  return medians;
}

// Reads every byte once, as widely as the CPU can: the floor of any scan. With `ahead` not zero it
// also prefetches that many bytes ahead, which is faster on some machines.
__attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3"))) uint64_t read_all(
    const float* rows, size_t count, size_t ahead) {
  const auto* words = reinterpret_cast<const uint64_t*>(rows);
  constexpr size_t kSums = 32;
  constexpr size_t kLineBytes = 64;
  uint64_t sums[kSums] = {};
  for (size_t i = 0; i + kSums <= count / 2; i += kSums) {
    if (ahead != 0) {
      const char* line = reinterpret_cast<const char*>(words + i) + ahead;
      for (size_t l = 0; l < kSums * sizeof(uint64_t) / kLineBytes; ++l) {
        __builtin_prefetch(line + l * kLineBytes, 0, 2);
      }
    }
    for (size_t s = 0; s < kSums; ++s) sums[s] += words[i + s];
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

volatile uint64_t g_sink;

void bench_scan(const char* memory, Metric metric, const float* rows, const Matrix& base,
                const Matrix& queries, const std::vector<float>& norms, int repeats) {
  constexpr size_t kAhead = 4096;
  const auto query = PreparedQuery::make(metric, {queries.row(0), queries.dim});
  std::vector<float> out(base.rows);
  const std::vector<double> seconds = compare(
      repeats, {[&] { g_sink = read_all(rows, base.values.size(), 0); },
                [&] { g_sink = read_all(rows, base.values.size(), kAhead); },
                [&] { query.value().distances(rows, norms.data(), base.rows, out.data()); }});
  const double bytes = static_cast<double>(base.values.size() * sizeof(float));
  const double floor_seconds = std::min(seconds[0], seconds[1]);
  std::printf(
      "scan  %-7s read once: plain %6.2f ms, prefetching %6.2f ms (%.1f GB/s)   scan %6.2f ms   "
      "scan/plain %.3f   scan/floor %.3f\n",
      memory, seconds[0] * 1e3, seconds[1] * 1e3, bytes / floor_seconds * 1e-9, seconds[2] * 1e3,
      seconds[2] / seconds[0], seconds[2] / floor_seconds);
}

using Hit = std::pair<float, uint32_t>;

// The k smallest, as a max-heap. Ties go to the smaller row.
class TopK {
 public:
  void offer(float distance, uint32_t row) {
    const Hit hit(distance, row);
    if (hits_.size() < kTopK) {
      hits_.push_back(hit);
      std::push_heap(hits_.begin(), hits_.end());
    } else if (hit < hits_.front()) {
      std::pop_heap(hits_.begin(), hits_.end());
      hits_.back() = hit;
      std::push_heap(hits_.begin(), hits_.end());
    }
  }
  float threshold() const { return hits_.size() < kTopK ? aionbd::kFarthest : hits_.front().first; }
  std::vector<Hit> sorted() const {
    std::vector<Hit> out = hits_;
    std::sort_heap(out.begin(), out.end());
    return out;
  }

 private:
  std::vector<Hit> hits_;
};

// As the engine does it: blocks of rows for all queries, per row the queries whose threshold lets
// it pass, the exact distance of those, a heap per query.
std::vector<TopK> search_batch(Metric metric, const Matrix& base, const Matrix& queries,
                               const std::vector<float>& norms, size_t* ranked) {
  std::vector<std::span<const float>> spans;
  std::vector<PreparedQuery> exact;
  for (size_t q = 0; q < kBatchQueries; ++q) {
    spans.emplace_back(queries.row(q), queries.dim);
    exact.push_back(PreparedQuery::make(metric, spans.back()).value());
  }
  const auto prepared = PreparedBatch::make(metric, spans);
  const PreparedBatch& batch = prepared.value();
  const float norm_max = *std::max_element(norms.begin(), norms.end());
  std::vector<float> bounds(kBatchQueries);
  for (size_t q = 0; q < kBatchQueries; ++q) bounds[q] = batch.error_bound(q, norm_max);

  std::vector<float> block(PreparedBatch::kRowsBlock * batch.stride());
  std::vector<float> thresholds(kBatchQueries, aionbd::kFarthest);
  std::vector<uint32_t> selected(kBatchQueries);
  std::vector<TopK> tops(kBatchQueries);
  *ranked = 0;
  for (size_t begin = 0; begin < base.rows; begin += PreparedBatch::kRowsBlock) {
    const size_t n = std::min(PreparedBatch::kRowsBlock, base.rows - begin);
    batch.distances(base.row(begin), &norms[begin], n, block.data());
    for (size_t i = 0; i < n; ++i) {
      const size_t hits = aionbd::select_at_most(&block[i * batch.stride()], thresholds.data(),
                                                 kBatchQueries, selected.data());
      *ranked += hits;
      for (size_t h = 0; h < hits; ++h) {
        const uint32_t q = selected[h];
        float distance = 0;
        exact[q].distances(base.row(begin + i), &norms[begin + i], 1, &distance);
        tops[q].offer(distance, static_cast<uint32_t>(begin + i));
        thresholds[q] = tops[q].threshold() + bounds[q];
      }
    }
  }
  return tops;
}

void bench_batch(Metric metric, Matrix& base, Matrix& queries, const std::vector<float>& norms,
                 int repeats) {
  const bool l2 = metric == Metric::kL2;
  const auto dim = static_cast<int64_t>(base.dim);
  std::unique_ptr<faiss::IndexFlat> index;
  if (l2) {
    index = std::make_unique<faiss::IndexFlatL2>(dim);
  } else {
    index = std::make_unique<faiss::IndexFlatIP>(dim);
  }
  index->add(static_cast<int64_t>(base.rows), base.values.data());

  std::vector<float> peer_scores(kBatchQueries * kTopK);
  std::vector<int64_t> peer_rows(kBatchQueries * kTopK);
  std::vector<TopK> ours;
  size_t ranked = 0;
  const std::vector<double> seconds =
      compare(repeats, {[&] {
                          index->search(kBatchQueries, queries.values.data(), kTopK,
                                        peer_scores.data(), peer_rows.data());
                        },
                        [&] { ours = search_batch(metric, base, queries, norms, &ranked); }});
  const double peer_seconds = seconds[0];
  const double our_seconds = seconds[1];

  size_t same = 0;
  for (size_t q = 0; q < kBatchQueries; ++q) {
    for (const Hit& hit : ours[q].sorted()) {
      const auto* begin = &peer_rows[q * kTopK];
      same += std::find(begin, begin + kTopK, int64_t{hit.second}) != begin + kTopK;
    }
  }
  const double operations = 2.0 * kBatchQueries * static_cast<double>(base.values.size());
  std::printf(
      "batch %zu queries: FAISS %.3f s (%.1f GFLOP/s)   ours %.3f s (%.1f GFLOP/s)   "
      "ours/FAISS speed %.3f\n",
      kBatchQueries, peer_seconds, operations / peer_seconds * 1e-9, our_seconds,
      operations / our_seconds * 1e-9, peer_seconds / our_seconds);
  std::printf("      same answers %.4f   rows ranked exactly %.1f per query\n",
              static_cast<double>(same) / (kBatchQueries * kTopK),
              static_cast<double>(ranked) / kBatchQueries);
}

// FAISS has no cosine; on rows of norm 1 its inner product is one.
void normalise(Matrix& matrix) {
  for (size_t i = 0; i < matrix.rows; ++i) {
    float* row = matrix.values.data() + i * matrix.dim;
    const float norm = std::sqrt(aionbd::norm_squared(row, matrix.dim));
    for (size_t k = 0; k < matrix.dim; ++k) row[k] /= norm;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const auto metric = aionbd::metric_by_name(argc > 1 ? argv[1] : "l2");
  const int repeats = argc > 2 ? std::max(1, std::atoi(argv[2])) : 5;
  if (!metric.has_value()) fail("the metric is one of l2, dot, cosine");

  Matrix base = read_images(std::string(kDataFolder) + "train-images-idx3-ubyte.gz");
  Matrix queries = read_images(std::string(kDataFolder) + "t10k-images-idx3-ubyte.gz");
  if (*metric == Metric::kCosine) {
    normalise(base);
    normalise(queries);
  }
  std::vector<float> norms(base.rows);
  for (size_t i = 0; i < base.rows; ++i) norms[i] = aionbd::norm_squared(base.row(i), base.dim);
  std::printf("%zu rows x %zu, metric %s, kernels %s, %d repeats, medians\n", base.rows, base.dim,
              std::string(aionbd::metric_info(*metric).name).c_str(),
              std::string(aionbd::simd_target_name()).c_str(), repeats);

  const MappedCopy mapped(base);
  bench_scan("heap", *metric, base.values.data(), base, queries, norms, 5 * repeats);
  bench_scan("mapped", *metric, mapped.rows(), base, queries, norms, 5 * repeats);
  bench_batch(*metric, base, queries, norms, repeats);
  return 0;
}
