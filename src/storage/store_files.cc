#include "storage/store_files.h"

namespace aionbd {
namespace {

bool own_temp(std::string_view name) {
  if (!name.ends_with(kTempSuffix)) return false;
  name.remove_suffix(kTempSuffix.size());
  return name == kManifestName || parse_log_name(name) || parse_segment_name(name);
}

}  // namespace

Result<StoreListing> list_store(FileSystem* files, const std::string& dir) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, files->list(dir));
  StoreListing out;
  for (const std::string& name : names) {
    if (name == kManifestName) {
      out.has_manifest = true;
    } else if (const auto first_lsn = parse_log_name(name)) {
      out.logs.push_back(*first_lsn);
    } else if (const auto id = parse_segment_name(name)) {
      out.segments.push_back(*id);
    } else if (own_temp(name)) {
      out.temps.push_back(name);
    } else if (name != kLockName && name != kReserveName) {
      out.foreign.push_back(name);
    }
  }
  return out;
}

}  // namespace aionbd
