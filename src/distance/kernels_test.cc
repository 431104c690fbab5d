// Every target this CPU can run, not only the best one, against sums in double.
#include "distance/kernels.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "distance/row_values.h"
#include "distance/test_vectors.h"

namespace aionbd {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

double gamma_of(size_t depth) {
  const double ku = static_cast<double>(depth) * 0x1p-24;
  return ku / (1 - ku);
}

struct Reference {
  double dot = 0;
  double dot_magnitude = 0;
  double l2 = 0;
};

Reference reference(const float* q, const float* x, size_t dim) {
  Reference out;
  for (size_t k = 0; k < dim; ++k) {
    const double product = double{q[k]} * double{x[k]};
    const double difference = double{q[k]} - double{x[k]};
    out.dot += product;
    out.dot_magnitude += std::abs(product);
    out.l2 += difference * difference;
  }
  return out;
}

double underflow_of(size_t dim) {
  return static_cast<double>(dim + 16) * 0x1p-149;
}

TEST(Kernels, ListEndsWithScalarAndNamesAreUnique) {
  std::set<std::string_view> names;
  for (const Kernels* each : supported_kernels()) {
    EXPECT_TRUE(names.insert(each->name).second) << each->name;
    EXPECT_EQ(&kernels_by_name(each->name), each);
    EXPECT_EQ(each->panel_columns % each->lanes, 0U);
    EXPECT_TRUE(std::has_single_bit(each->lanes * each->accumulators));
  }
  EXPECT_EQ(supported_kernels().back(), &kScalarKernels);
}

#if defined(__aarch64__)
// Also without AES, which Highway wants beside NEON: it fails only on such a CPU.
TEST(Kernels, EveryAArch64CpuRunsNeon) {
  EXPECT_EQ(supported_kernels().front()->name, "neon");
}
#endif

TEST(Kernels, UnknownNameMeansTheBest) {
  EXPECT_EQ(&kernels_by_name(""), supported_kernels().front());
  EXPECT_EQ(&kernels_by_name("AVX512"), supported_kernels().front());
  EXPECT_EQ(&kernels_by_name("mmx"), supported_kernels().front());
}

TEST(Kernels, TheProcessUsesWhatTheEnvironmentNames) {
  const char* wanted = std::getenv("AIONBD_SIMD");
  EXPECT_EQ(&kernels(), &kernels_by_name(wanted == nullptr ? "" : wanted));
}

TEST(Kernels, SumsStayWithinTheirBound) {
  for (const Kernels* target : supported_kernels()) {
    for (const size_t dim : ragged_dimensions()) {
      for (const VectorKind kind : kVectorKinds) {
        constexpr size_t kRows = 7;
        const std::vector<float> query = make_vector(kind, dim, 1);
        const std::vector<float> rows = make_vector(kind, dim * kRows, 2);
        float dots[kRows];
        float squares[kRows];
        target->dot(query.data(), rows.data(), dim, kRows, dots);
        target->l2_squared(query.data(), rows.data(), dim, kRows, squares);
        for (size_t i = 0; i < kRows; ++i) {
          const Reference want = reference(query.data(), rows.data() + i * dim, dim);
          SCOPED_TRACE(std::string(target->name) + " dim " + std::to_string(dim) + " kind " +
                       std::to_string(static_cast<int>(kind)));
          const double depth_error = gamma_of(target->sum_depth(dim));
          ASSERT_LE(std::abs(double{dots[i]} - want.dot),
                    depth_error * want.dot_magnitude + underflow_of(dim));
          ASSERT_LE(std::abs(double{squares[i]} - want.l2),
                    gamma_of(target->sum_depth(dim) + 2) * want.l2 + underflow_of(dim));
        }
      }
    }
  }
}

TEST(Kernels, ValueDependsNeitherOnCountNorOnPlace) {
  constexpr size_t kRows = 67;
  for (const Kernels* target : supported_kernels()) {
    for (const size_t dim : {1, 3, 15, 16, 17, 63, 64, 65, 100, 128, 784, 1000}) {
      // One float of offset: rows are not aligned to vectors.
      const std::vector<float> query = make_vector(VectorKind::kGaussian, dim, 3);
      const std::vector<float> storage = make_vector(VectorKind::kGaussian, dim * kRows + 1, 4);
      const float* rows = storage.data() + 1;
      for (const auto kernel : {target->dot, target->l2_squared}) {
        std::vector<float> alone(kRows);
        for (size_t i = 0; i < kRows; ++i) {
          kernel(query.data(), rows + i * dim, dim, 1, &alone[i]);
        }
        for (size_t begin = 0; begin < 6; ++begin) {
          for (const size_t n : {1, 2, 3, 4, 5, 7, 8, 9, 31, 61}) {
            std::vector<float> out(n);
            kernel(query.data(), rows + begin * dim, dim, n, out.data());
            ASSERT_EQ(std::memcmp(out.data(), &alone[begin], n * sizeof(float)), 0)
                << target->name << " dim " << dim << " begin " << begin << " n " << n;
          }
        }
      }
    }
  }
}

TEST(Kernels, BytesGiveTheBitsOfTheFloatsTheyStandFor) {
  constexpr size_t kRows = 29;
  std::mt19937 random(5);
  for (const Kernels* target : supported_kernels()) {
    for (const size_t dim : {1, 2, 7, 8, 15, 16, 17, 31, 63, 64, 65, 100, 128, 129, 784, 1000}) {
      for (const float base : {0.0F, -128.0F}) {
        // An offset of one: rows of bytes are not aligned to anything.
        std::vector<uint8_t> storage(dim * kRows + 1);
        for (uint8_t& byte : storage) byte = static_cast<uint8_t>(random());
        const uint8_t* bytes = storage.data() + 1;
        std::vector<float> floats(dim * kRows);
        RowValues(bytes, base).copy(floats.size(), floats.data());
        ASSERT_EQ(floats.back(), base + static_cast<float>(storage.back()));
        std::vector<float> query = make_vector(VectorKind::kGaussian, dim, 3);
        for (float& value : query) value = value * 50 + 0.1F;
        for (const size_t n : {size_t{1}, size_t{3}, size_t{4}, kRows}) {
          std::vector<float> want(n);
          std::vector<float> got(n);
          target->dot(query.data(), floats.data(), dim, n, want.data());
          target->dot_bytes(query.data(), bytes, base, dim, n, got.data());
          ASSERT_EQ(std::memcmp(got.data(), want.data(), n * sizeof(float)), 0)
              << target->name << " dot, dim " << dim << " base " << base << " n " << n;
          target->l2_squared(query.data(), floats.data(), dim, n, want.data());
          target->l2_squared_bytes(query.data(), bytes, base, dim, n, got.data());
          ASSERT_EQ(std::memcmp(got.data(), want.data(), n * sizeof(float)), 0)
              << target->name << " l2, dim " << dim << " base " << base << " n " << n;
        }
      }
    }
  }
}

// Floats that end exactly at an inaccessible page.
class GuardedFloats {
 public:
  explicit GuardedFloats(size_t count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = (count * sizeof(float) + page - 1) / page * page;
    size_ = bytes + 2 * page;
    base_ = static_cast<char*>(mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    EXPECT_EQ(mprotect(base_ + page, bytes, PROT_READ | PROT_WRITE), 0);
    data_ = reinterpret_cast<float*>(base_ + page + bytes) - count;
    for (size_t i = 0; i < count; ++i) data_[i] = static_cast<float>(i % 13) - 6;
  }
  ~GuardedFloats() { munmap(base_, size_); }
  GuardedFloats(const GuardedFloats&) = delete;
  GuardedFloats& operator=(const GuardedFloats&) = delete;
  float* data() { return data_; }

 private:
  size_t size_;
  char* base_;
  float* data_;
};

TEST(Kernels, NothingBeyondTheArgumentsIsTouched) {
  for (const Kernels* target : supported_kernels()) {
    for (size_t dim = 1; dim <= 70; ++dim) {
      for (const size_t n : {1, 2, 4, 5}) {
        GuardedFloats query(dim);
        GuardedFloats rows(dim * n);
        GuardedFloats out(n);
        target->dot(query.data(), rows.data(), dim, n, out.data());
        EXPECT_EQ(out.data()[n - 1], reference(query.data(), rows.data() + (n - 1) * dim, dim).dot);
        target->l2_squared(query.data(), rows.data(), dim, n, out.data());
        EXPECT_EQ(out.data()[n - 1], reference(query.data(), rows.data() + (n - 1) * dim, dim).l2);
      }
    }
  }
}

TEST(Kernels, NonFiniteElementsReachTheResult) {
  for (const Kernels* target : supported_kernels()) {
    for (const size_t dim : {1, 5, 16, 33, 100}) {
      for (size_t at = 0; at < dim; ++at) {
        for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
          std::vector<float> query(dim, 1.0F);
          std::vector<float> row(dim, 2.0F);
          row[at] = bad;
          float out = 0;
          target->dot(query.data(), row.data(), dim, 1, &out);
          EXPECT_FALSE(std::isfinite(out)) << target->name << " " << dim << " " << at;
          target->l2_squared(query.data(), row.data(), dim, 1, &out);
          EXPECT_FALSE(std::isfinite(out)) << target->name << " " << dim << " " << at;
        }
      }
    }
  }
}

// Packs columns as BatchArguments says. 64-byte aligned through the vector's element type.
struct alignas(64) Line {
  float values[16];
};

std::vector<Line> pack(const Kernels& target, const std::vector<float>& queries, size_t count,
                       size_t columns, size_t dim) {
  std::vector<Line> lines(columns * dim / 16 + 1);
  float* packed = lines.data()->values;
  for (size_t c = 0; c < count; ++c) {
    const size_t panel = c / target.panel_columns * target.panel_columns;
    const size_t width = std::min(target.panel_columns, columns - panel);
    for (size_t k = 0; k < dim; ++k) {
      packed[panel * dim + k * width + (c - panel)] = queries[c * dim + k];
    }
  }
  return lines;
}

void check_batch(const Kernels& target, size_t dim, size_t count, size_t n, VectorKind kind) {
  SCOPED_TRACE(std::string(target.name) + " dim " + std::to_string(dim) + " queries " +
               std::to_string(count) + " rows " + std::to_string(n));
  const std::vector<float> queries = make_vector(kind, dim * count, 5);
  const std::vector<float> rows = make_vector(kind, dim * n, 6);
  const size_t columns = (count + target.lanes - 1) / target.lanes * target.lanes;
  const std::vector<Line> packed = pack(target, queries, count, columns, dim);
  std::vector<float> column_add(columns);
  for (size_t c = 0; c < columns; ++c) column_add[c] = static_cast<float>(c);
  std::vector<float> row_scale(n, 0.5F);
  std::vector<float> row_add(n, 0.25F);
  std::vector<float> out(n * columns + 1, -7.0F);
  BatchArguments a;
  a.rows = rows.data();
  a.n = n;
  a.dim = dim;
  a.packed = packed.data()->values;
  a.columns = columns;
  a.column_add = column_add.data();
  a.row_scale = row_scale.data();
  a.row_add = row_add.data();
  a.lowest = -std::numeric_limits<float>::max();
  a.highest = std::numeric_limits<float>::max();
  a.out = out.data();
  target.batch(a);
  EXPECT_EQ(out.back(), -7.0F);
  for (size_t i = 0; i < n; ++i) {
    for (size_t c = 0; c < count; ++c) {
      const Reference r = reference(&queries[c * dim], &rows[i * dim], dim);
      const double want = r.dot * 0.5 + static_cast<double>(c) + 0.25;
      const double allowed = gamma_of(batch_depth(dim) + 2) * r.dot_magnitude * 0.5 +
                             gamma_of(2) * (static_cast<double>(c) + 0.25) + underflow_of(dim);
      ASSERT_LE(std::abs(double{out[i * columns + c]} - want), allowed) << i << " " << c;
    }
  }
}

TEST(Kernels, BatchStaysWithinItsBound) {
  for (const Kernels* target : supported_kernels()) {
    for (const size_t dim : {1, 2, 17, 127, 128, 129, 300, 784}) {
      for (const size_t count : {1, 2, 15, 16, 17, 47, 48, 49, 64, 101}) {
        check_batch(*target, dim, count, 9, VectorKind::kGaussian);
      }
    }
    for (size_t n = 1; n <= 64; n += 3) check_batch(*target, 33, 40, n, VectorKind::kMixedScale);
  }
}

TEST(Kernels, BatchClampsAndMarksNonFinite) {
  for (const Kernels* target : supported_kernels()) {
    const size_t columns = target->lanes;
    std::vector<float> queries(columns, 1.0F);
    queries[0] = kInfinity;
    const std::vector<Line> packed = pack(*target, queries, columns, columns, 1);
    const std::vector<float> rows = {0.0F, 5.0F, -5.0F, std::nanf("")};
    const std::vector<float> column_add(columns, 0.0F);
    const std::vector<float> ones(4, 1.0F);
    const std::vector<float> zeros(4, 0.0F);
    std::vector<float> out(4 * columns);
    target->batch({rows.data(), 4, 1, packed.data()->values, columns, column_add.data(),
                   ones.data(), zeros.data(), -1.0F, 2.0F, out.data()});
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(out[i * columns], kInfinity) << target->name << i;
    for (size_t c = 1; c < columns; ++c) {
      EXPECT_EQ(out[0 * columns + c], 0.0F);
      EXPECT_EQ(out[1 * columns + c], 2.0F);
      EXPECT_EQ(out[2 * columns + c], -1.0F);
      EXPECT_EQ(out[3 * columns + c], kInfinity);
    }
  }
}

TEST(Kernels, SelectionEqualsTheObviousLoop) {
  std::mt19937 random(7);
  std::uniform_int_distribution<int> small(0, 9);
  for (const Kernels* target : supported_kernels()) {
    for (size_t n = 0; n < 200; ++n) {
      std::vector<float> values(n);
      std::vector<float> thresholds(n);
      const int density = small(random);
      for (size_t i = 0; i < n; ++i) {
        values[i] = static_cast<float>(small(random));
        thresholds[i] = static_cast<float>(small(random) - density);
        const int special = small(random) * 10 + small(random);
        if (special == 0) values[i] = kInfinity;
        if (special == 1) thresholds[i] = kInfinity;
        if (special == 2) values[i] = std::nanf("");
        if (special == 3) thresholds[i] = -kInfinity;
      }
      std::vector<uint32_t> want;
      std::vector<uint32_t> want_one;
      for (uint32_t i = 0; i < n; ++i) {
        if (values[i] <= thresholds[i]) want.push_back(i);
        if (values[i] <= 4.0F) want_one.push_back(i);
      }
      // One more element than allowed to be written.
      std::vector<uint32_t> got(n + 1, 12345U);
      got.resize(target->select_each(values.data(), thresholds.data(), n, got.data()));
      EXPECT_EQ(got, want) << target->name << " " << n;
      got.assign(n + 1, 12345U);
      const size_t count = target->select_one(values.data(), 4.0F, n, got.data());
      EXPECT_EQ(got[n], 12345U);
      got.resize(count);
      EXPECT_EQ(got, want_one) << target->name << " " << n;
    }
  }
}

}  // namespace
}  // namespace aionbd
