// Exact search on Fashion-MNIST through the public API, one thread, in one run:
//   single  one query, against the time of reading the rows once from a mapped file (a wide sum,
//           plain and prefetching; the floor is the better one);
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
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "aionbd/aionbd.h"
#include "distance/metric.h"

namespace {

using aionbd::Metric;

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

// The engine as an embedder meets it: one thread, rows sealed in one segment of a store on disk.
class Store {
 public:
  Store(const Matrix& base, Metric metric)
      : dir_(std::filesystem::temp_directory_path() / "aionbd-bench-flat"), metric_(metric) {
    std::filesystem::remove_all(dir_);
    aionbd::DatabaseOptions options;
    options.data_dir = dir_;
    options.search_threads = 1;
    options.checkpoint_interval = 1000;
    database_ = aionbd::Database::open(options).value();
    aionbd::CollectionOptions shape;
    shape.dimension = static_cast<uint32_t>(base.dim);
    collection_ = database_->create_collection("bench", shape).value();
    std::vector<aionbd::Point> points;
    for (size_t i = 0; i < base.rows; ++i) {
      points.push_back({uint64_t{i}, {base.row(i), base.row(i) + base.dim}, {}});
      if (points.size() < kLoadBatch && i + 1 < base.rows) continue;
      (void)collection_->upsert(points).value();
      points.clear();
    }
    if (!collection_->optimize().ok()) fail("optimize failed");
  }
  ~Store() {
    collection_.reset();
    database_.reset();
    std::filesystem::remove_all(dir_);
  }
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  aionbd::SearchResult search(std::span<const float> query) const {
    aionbd::SearchRequest request = common();
    request.query = query;
    return collection_->search(request).value();
  }
  std::vector<aionbd::SearchResult> search_batch(const Matrix& queries) const {
    aionbd::SearchBatchRequest request;
    request.common = common();
    for (size_t q = 0; q < kBatchQueries; ++q) {
      request.queries.emplace_back(queries.row(q), queries.dim);
    }
    return collection_->search_batch(request).value();
  }

 private:
  static constexpr size_t kLoadBatch = 256;

  aionbd::SearchRequest common() const {
    aionbd::SearchRequest out;
    out.metric = metric_;
    out.limit = kTopK;
    out.mode = aionbd::SearchMode::kExact;
    out.include_payload = false;
    return out;
  }

  std::filesystem::path dir_;
  Metric metric_;
  std::unique_ptr<aionbd::Database> database_;
  std::shared_ptr<aionbd::Collection> collection_;
};

void bench_single(const Store& store, const MappedCopy& mapped, const Matrix& base,
                  const Matrix& queries, int repeats) {
  constexpr size_t kAhead = 4096;
  size_t next = 0;
  const std::vector<double> seconds = compare(
      repeats, {[&] { g_sink = read_all(mapped.rows(), base.values.size(), 0); },
                [&] { g_sink = read_all(mapped.rows(), base.values.size(), kAhead); },
                [&] {
                  const auto result = store.search({queries.row(next++ % queries.rows), base.dim});
                  g_sink = result.hits.size();
                }});
  const double bytes = static_cast<double>(base.values.size() * sizeof(float));
  const double floor_seconds = std::min(seconds[0], seconds[1]);
  std::printf(
      "single  read once: plain %.2f ms, prefetching %.2f ms (%.1f GB/s)   search %.2f ms   "
      "search/floor %.3f\n",
      seconds[0] * 1e3, seconds[1] * 1e3, bytes / floor_seconds * 1e-9, seconds[2] * 1e3,
      seconds[2] / floor_seconds);
}

void bench_batch(const Store& store, Metric metric, const Matrix& base, const Matrix& queries,
                 int repeats) {
  const auto dim = static_cast<int64_t>(base.dim);
  std::unique_ptr<faiss::IndexFlat> index;
  if (metric == Metric::kL2) {
    index = std::make_unique<faiss::IndexFlatL2>(dim);
  } else {
    index = std::make_unique<faiss::IndexFlatIP>(dim);
  }
  index->add(static_cast<int64_t>(base.rows), base.values.data());
  std::vector<float> peer_scores(kBatchQueries * kTopK);
  std::vector<int64_t> peer_rows(kBatchQueries * kTopK);
  std::vector<aionbd::SearchResult> ours;
  const std::vector<double> seconds =
      compare(repeats, {[&] {
                          index->search(kBatchQueries, queries.values.data(), kTopK,
                                        peer_scores.data(), peer_rows.data());
                        },
                        [&] { ours = store.search_batch(queries); }});
  size_t same = 0;
  for (size_t q = 0; q < kBatchQueries; ++q) {
    for (const aionbd::Hit& hit : ours[q].hits) {
      const auto* begin = &peer_rows[q * kTopK];
      same +=
          std::find(begin, begin + kTopK, static_cast<int64_t>(hit.id.number())) != begin + kTopK;
    }
  }
  const double operations = 2.0 * kBatchQueries * static_cast<double>(base.values.size());
  std::printf(
      "batch   %zu queries: FAISS %.3f s (%.1f GFLOP/s)   ours %.3f s (%.1f GFLOP/s)   "
      "ours/FAISS speed %.3f   same answers %.4f\n",
      kBatchQueries, seconds[0], operations / seconds[0] * 1e-9, seconds[1],
      operations / seconds[1] * 1e-9, seconds[0] / seconds[1],
      static_cast<double>(same) / (kBatchQueries * kTopK));
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
  std::printf("%zu rows x %zu, metric %s, kernels %s, %d repeats, medians\n", base.rows, base.dim,
              std::string(aionbd::metric_info(*metric).name).c_str(),
              std::string(aionbd::simd_target_name()).c_str(), repeats);

  const MappedCopy mapped(base);
  const Store store(base, *metric);
  bench_single(store, mapped, base, queries, 5 * repeats);
  bench_batch(store, *metric, base, queries, repeats);
  return 0;
}
