// HDF5 data sets of two axes, as the ann-benchmarks files have them (`train`, `test`). The only
// file that knows the HDF5 library.
//
// HDF5 is a large format and its library opens other files when a file tells it to: external links,
// external storage, virtual data sets, filter plug-ins. All four are refused, and a chunk may not
// be larger than kChunkBytesMax, because the library allocates it in one piece.
#include <hdf5.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>

#include "cli/row_source.h"

namespace aionbd {
namespace {

constexpr uint64_t kChunkBytesMax = uint64_t{256} << 20;

/// Closes an HDF5 handle with the function of its kind. Thread safety: single owner.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  Handle& operator=(Handle&&) = delete;

  bool ok() const { return id_ >= 0; }
  hid_t id() const { return id_; }

 private:
  hid_t id_;
  Close close_;
};

/// Thread safety: single owner; one at a time in a process (the library is not thread-safe).
class Hdf5Source : public RowSource {
 public:
  Hdf5Source(Handle file, Handle dataset, uint64_t rows, uint32_t dim, uint64_t file_bytes,
             std::optional<Metric> metric)
      : file_(std::move(file)),
        dataset_(std::move(dataset)),
        rows_(rows),
        dim_(dim),
        file_bytes_(file_bytes),
        metric_(metric) {}

  Status next(size_t rows_max, size_t bytes_max, RowBatch* out) override {
    *out = RowBatch{};
    out->first_row = row_;
    const size_t fit = std::max<size_t>(1, bytes_max / (dim_ * sizeof(float)));
    const uint64_t take = std::min<uint64_t>({rows_ - row_, rows_max, fit});
    out->dimension = dim_;
    if (take == 0) return {};
    out->values.resize(static_cast<size_t>(take) * dim_);
    const hsize_t start[2] = {row_, 0};
    const hsize_t count[2] = {take, dim_};
    const Handle from(H5Dget_space(dataset_.id()), H5Sclose);
    const Handle to(H5Screate_simple(2, count, nullptr), H5Sclose);
    if (!from.ok() || !to.ok() ||
        H5Sselect_hyperslab(from.id(), H5S_SELECT_SET, start, nullptr, count, nullptr) < 0 ||
        H5Dread(dataset_.id(), H5T_NATIVE_FLOAT, to.id(), from.id(), H5P_DEFAULT,
                out->values.data()) < 0) {
      return corruption("the HDF5 file is damaged in rows " + std::to_string(row_) + " to " +
                        std::to_string(row_ + take - 1));
    }
    out->rows_taken = take;
    row_ += take;
    return {};
  }

  Status skip(uint64_t rows) override {
    if (rows > rows_ - row_) return corruption("the file has fewer rows than to be skipped");
    row_ += rows;
    return {};
  }

  uint32_t dimension() const override { return dim_; }
  std::optional<uint64_t> rows_count() const override { return rows_; }
  std::optional<Metric> metric() const override { return metric_; }
  uint64_t consumed() const override {
    const double share = rows_ == 0 ? 1 : static_cast<double>(row_) / static_cast<double>(rows_);
    return static_cast<uint64_t>(share * static_cast<double>(file_bytes_));
  }
  uint64_t file_bytes() const override { return file_bytes_; }

 private:
  const Handle file_;
  const Handle dataset_;
  const uint64_t rows_;
  const uint32_t dim_;
  const uint64_t file_bytes_;
  const std::optional<Metric> metric_;
  uint64_t row_ = 0;
};

/// The file attribute `distance` of ann-benchmarks.
std::optional<Metric> read_metric(hid_t file) {
  if (H5Aexists(file, "distance") <= 0) return std::nullopt;
  const Handle attribute(H5Aopen(file, "distance", H5P_DEFAULT), H5Aclose);
  if (!attribute.ok()) return std::nullopt;
  const Handle type(H5Aget_type(attribute.id()), H5Tclose);
  const Handle space(H5Aget_space(attribute.id()), H5Sclose);
  if (!type.ok() || !space.ok() || H5Tget_class(type.id()) != H5T_STRING ||
      H5Sget_simple_extent_npoints(space.id()) != 1) {
    return std::nullopt;
  }
  std::string text;
  if (H5Tis_variable_str(type.id()) > 0) {
    char* value = nullptr;
    if (H5Aread(attribute.id(), type.id(), &value) < 0 || value == nullptr) return std::nullopt;
    text = value;
    H5free_memory(value);
  } else {
    constexpr size_t kNameBytesMax = 64;
    const size_t size = H5Tget_size(type.id());
    if (size == 0 || size > kNameBytesMax) return std::nullopt;
    text.resize(size);
    if (H5Aread(attribute.id(), type.id(), text.data()) < 0) return std::nullopt;
    text.resize(std::min(text.find('\0'), text.size()));
  }
  if (text == "euclidean") return Metric::kL2;
  if (text == "angular") return Metric::kCosine;
  return std::nullopt;
}

/// Refuses what would make the library read other files or allocate without bound.
Status check_storage(hid_t dataset, uint64_t content_bytes, uint64_t file_bytes) {
  const Handle list(H5Dget_create_plist(dataset), H5Pclose);
  if (!list.ok()) return corruption("the HDF5 data set has no readable properties");
  if (H5Pget_external_count(list.id()) != 0) {
    return invalid_argument("the HDF5 data set keeps its numbers in other files");
  }
  switch (H5Pget_layout(list.id())) {
    case H5D_CONTIGUOUS:
    case H5D_COMPACT:
      if (H5Dget_storage_size(dataset) != content_bytes || content_bytes > file_bytes) {
        return corruption("the HDF5 data set is longer than its file");
      }
      return {};
    case H5D_CHUNKED: {
      hsize_t dims[2] = {0, 0};
      const Handle type(H5Dget_type(dataset), H5Tclose);
      uint64_t bytes = 0;
      if (!type.ok() || H5Pget_chunk(list.id(), 2, dims) != 2 ||
          __builtin_mul_overflow(dims[0], dims[1], &bytes) ||
          __builtin_mul_overflow(bytes, H5Tget_size(type.id()), &bytes) || bytes > kChunkBytesMax) {
        return corruption("the HDF5 data set has chunks over " + std::to_string(kChunkBytesMax) +
                          " bytes");
      }
      return {};
    }
    default: return invalid_argument("the HDF5 data set is virtual");
  }
}

}  // namespace

Result<std::unique_ptr<RowSource>> open_hdf5(const std::string& path, const std::string& dataset) {
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);  // its error stack would go to stderr
  unsigned plugins = 0;
  H5PLset_loading_state(plugins);
  std::error_code error;
  const uint64_t file_bytes = std::filesystem::file_size(path, error);
  if (error) return not_found("cannot open " + path + ": " + error.message());
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
  if (!file.ok()) return corruption(path + " is not a readable HDF5 file");

  // One plain name, hard-linked: nothing on the way can lead out of the file.
  H5L_info_t link;
  if (dataset.empty() || dataset.find('/') != std::string::npos || dataset == "." ||
      H5Lget_info(file.id(), dataset.c_str(), &link, H5P_DEFAULT) < 0) {
    return invalid_argument("no data set '" + dataset + "' at the top of the HDF5 file");
  }
  if (link.type != H5L_TYPE_HARD) return invalid_argument("'" + dataset + "' is only a link");
  Handle data(H5Dopen2(file.id(), dataset.c_str(), H5P_DEFAULT), H5Dclose);
  if (!data.ok()) return invalid_argument("'" + dataset + "' is not a readable data set");
  const Handle space(H5Dget_space(data.id()), H5Sclose);
  const Handle type(H5Dget_type(data.id()), H5Tclose);
  if (!space.ok() || !type.ok() || H5Sget_simple_extent_ndims(space.id()) != 2) {
    return invalid_argument("the data set '" + dataset + "' has not two axes");
  }
  const H5T_class_t kind = H5Tget_class(type.id());
  if (kind != H5T_FLOAT && kind != H5T_INTEGER) {
    return invalid_argument("the data set '" + dataset + "' does not hold numbers");
  }
  hsize_t dims[2] = {0, 0};
  H5Sget_simple_extent_dims(space.id(), dims, nullptr);
  if (dims[1] == 0 || dims[1] > kDimensionCeiling) {
    return invalid_argument("numbers per row: got " + std::to_string(dims[1]) + ", want 1 to " +
                            std::to_string(kDimensionCeiling));
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(dims[0], dims[1], &bytes) ||
      __builtin_mul_overflow(bytes, H5Tget_size(type.id()), &bytes)) {
    return corruption("the HDF5 data set announces more bytes than can exist");
  }
  RETURN_IF_ERROR(check_storage(data.id(), bytes, file_bytes));
  const auto metric = read_metric(file.id());
  return std::unique_ptr<RowSource>(
      std::make_unique<Hdf5Source>(std::move(file), std::move(data), dims[0],
                                   static_cast<uint32_t>(dims[1]), file_bytes, metric));
}

}  // namespace aionbd
