#include "server/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "aionbd/database.h"
#include "aionbd/types.h"

namespace aionbd {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kTiB = uint64_t{1} << 40;
constexpr uint64_t kDayMs = 86400000;
constexpr std::string_view kVariablePrefix = "AIONBD_";
constexpr std::string_view kFlagPrefix = "--";
/// Read by the program itself, not settings: the config file, and the kernels' target.
constexpr std::string_view kSimdVariable = "AIONBD_SIMD";
constexpr std::array<std::string_view, 2> kOtherVariables = {"AIONBD_CONFIG", kSimdVariable};

using S = Settings;

constexpr auto kRows = std::to_array<SettingRow>({
    {"bind", &S::bind, "127.0.0.1:8080", 0, 0, "",
     "Address and port to listen on; port 0 takes a free one."},
    {"data_dir", &S::data_dir, "data", 0, 0, "",
     "Directory of the data; made if missing. One process at a time."},
    {"backup_dir", &S::backup_dir, "", 0, 0, "",
     "Directory that POST /backup adds backups to, outside data_dir; made if missing. Empty: off."},
    {"backup_keep", &S::backup_keep, "0", 0, UINT32_MAX, "backups",
     "Newest ones that POST /backup leaves in backup_dir; it removes the others. 0: all stay."},
    {"max_dimension", &S::max_dimension, "4096", 1, kDimensionCeiling, "values",
     "Largest dimension of a collection."},
    {"max_points_per_collection", &S::max_points_per_collection, "1000000", 1, UINT32_MAX, "points",
     "Points one collection may hold; more are refused with 429."},
    {"memory_budget_mb", &S::memory_budget_mb, "0", 0, kTiB / kMiB, "MiB",
     "Memory for data; 0 is unlimited. The same as memory_budget_bytes in larger units."},
    {"memory_budget_bytes", &S::memory_budget_bytes, "0", 0, kTiB, "bytes",
     "Memory for data; 0 is unlimited. A write that would pass it is refused with 429."},
    {"strict_finite", &S::strict_finite, "true", 0, 0, "bool",
     "Default of new collections: refuse values beyond f32."},
    {"request_timeout_ms", &S::request_timeout_ms, "2000", 1, kDayMs, "ms",
     "Time for one request from the end of its head; then 408."},
    {"max_body_bytes", &S::max_body_bytes, "16777216", 1024, uint64_t{1} << 30, "bytes",
     "Largest request body; a larger one is refused with 413."},
    {"max_body_memory_bytes", &S::max_body_memory_bytes, "268435456", kMiB, kTiB, "bytes",
     "All request bodies held at one time; beyond it 503 overloaded."},
    {"max_concurrency", &S::max_concurrency, "256", 1, 4096, "requests",
     "Requests worked on at one time; as many again may wait, then 503 overloaded."},
    {"max_connections", &S::max_connections, "1024", 1, 65536, "connections",
     "Open connections; more are closed at once."},
    {"max_page_limit", &S::max_page_limit, "1000", 1, 100000, "points",
     "Largest page of a listing."},
    {"max_topk_limit", &S::max_topk_limit, "1000", 1, 100000, "hits", "Largest limit of a search."},
    {"upsert_batch_max_points", &S::upsert_batch_max_points, "256", 1, 100000, "points",
     "Points in one upsert request."},
    {"search_batch_max_queries", &S::search_batch_max_queries, "256", 1, 100000, "queries",
     "Queries in one batch search."},
    {"search_threads", &S::search_threads, "0", 0, 1024, "threads",
     "Threads one large search may use; 0 is one per core."},
    {"persistence_enabled", &S::persistence_enabled, "true", 0, 0, "bool",
     "False keeps everything in memory only; it is gone at exit."},
    {"wal_sync_on_write", &S::wal_sync_on_write, "true", 0, 0, "bool",
     "Every write is on the medium before it is acknowledged."},
    {"wal_sync_every_n_writes", &S::wal_sync_every_n_writes, "0", 0, UINT32_MAX, "writes",
     "With wal_sync_on_write off: sync after so many writes; 0 is never by count."},
    {"wal_sync_interval_seconds", &S::wal_sync_interval_seconds, "0", 0, 86400, "seconds",
     "With wal_sync_on_write off: sync at least so often; 0 is never by time."},
    {"wal_group_commit_max_batch", &S::wal_group_commit_max_batch, "16", 1, 65536, "records",
     "Writes that may share one sync."},
    {"wal_group_commit_flush_delay_ms", &S::wal_group_commit_flush_delay_ms, "0", 0, 10000, "ms",
     "How long a sync waits for company."},
    {"checkpoint_interval", &S::checkpoint_interval, "32", 1, UINT32_MAX, "writes",
     "Writes between checkpoints: bounds the log to replay at start."},
    {"async_checkpoints", &S::async_checkpoints, "false", 0, 0, "bool",
     "Checkpoints run beside the writes instead of inside one."},
    {"checkpoint_compact_after", &S::checkpoint_compact_after, "64", 2, 100000, "segments",
     "Segments of one collection that make compaction start."},
    {"disk_reserve_mb", &S::disk_reserve_mb, "64", 0, 65536, "MiB",
     "Disk space set aside: deletes and checkpoints go on when the disk is full; 0 is none."},
    {"ivf_nprobe_default", &S::ivf_nprobe_default, "8", 1, 65536, "lists",
     "Lists probed by mode ivf when no target_recall is given."},
    {"l2_index_build_cooldown_ms", &S::l2_index_build_cooldown_ms, "1000", 0, kDayMs, "ms",
     "Pause between two index builds in the background."},
    {"l2_index_build_max_in_flight", &S::l2_index_build_max_in_flight, "2", 1, 1024, "builds",
     "Index builds at one time; more than cores (or two) gain nothing, with a memory budget it is "
     "1."},
    {"l2_index_warmup_on_boot", &S::l2_index_warmup_on_boot, "true", 0, 0, "bool",
     "Open stored indexes and build missing ones from the start."},
    {"recall_audit", &S::recall_audit, "true", 0, 0, "bool",
     "Ask some real queries again exactly in idle time, and correct the estimate of recall."},
    {"tls_enabled", &S::tls_enabled, "false", 0, 0, "bool", "Serve HTTPS.", false, true},
    {"tls_cert_path", &S::tls_cert_path, "", 0, 0, "", "Certificate chain, PEM.", false, true},
    {"tls_key_path", &S::tls_key_path, "", 0, 0, "", "Private key, PEM.", false, true},
    {"auth_mode", &S::auth_mode, "disabled", 0, 0,
     "disabled|api_key|bearer_token|api_key_or_bearer_token|jwt|api_key_or_jwt",
     "How callers prove who they are.", false, true},
    {"auth_api_keys", &S::auth_api_keys, "", 0, 0, "", "tenant:key, comma separated.", true, true},
    {"auth_api_key_scopes", &S::auth_api_key_scopes, "", 0, 0, "",
     "key:read|write|admin, comma separated; a key not listed is admin.", true, true},
    {"auth_bearer_tokens", &S::auth_bearer_tokens, "", 0, 0, "", "tenant:token, comma separated.",
     true, true},
    {"auth_jwt_hs256_secret", &S::auth_jwt_hs256_secret, "", 0, 0, "",
     "Secret that signs tokens; at least 32 bytes.", true, true},
    {"auth_jwt_issuer", &S::auth_jwt_issuer, "", 0, 0, "", "Required iss claim.", false, true},
    {"auth_jwt_audience", &S::auth_jwt_audience, "", 0, 0, "",
     "Accepted aud claims, comma separated.", false, true},
    {"auth_jwt_tenant_claim", &S::auth_jwt_tenant_claim, "tenant", 0, 0, "",
     "Claim that names the tenant.", false, true},
    {"auth_jwt_principal_claim", &S::auth_jwt_principal_claim, "sub", 0, 0, "",
     "Claim that names the caller.", false, true},
    {"auth_rate_limit_per_minute", &S::auth_rate_limit_per_minute, "0", 0, UINT32_MAX, "requests",
     "Requests per tenant and minute; 0 is off.", false, true},
    {"auth_tenant_max_collections", &S::auth_tenant_max_collections, "0", 0, UINT32_MAX,
     "collections", "Collections per tenant; 0 is off.", false, true},
    {"auth_tenant_max_points", &S::auth_tenant_max_points, "0", 0, kTiB, "points",
     "Points per tenant; 0 is off.", false, true},
    {"log_level", &S::log_level, "info", 0, 0, "debug|info|warning|error",
     "Least severity that is logged; debug has a line per request."},
    {"log_format", &S::log_format, "text", 0, 0, "text|json", "Form of log lines."},
});

bool is_text(const SettingRow& row) {
  return row.field.index() == 0;
}
bool is_bool(const SettingRow& row) {
  return row.field.index() == 1;
}

/// True if `text` is one of the choices in "a|b|c".
bool is_choice(std::string_view choices, std::string_view text) {
  while (true) {
    const size_t bar = choices.find('|');
    if (choices.substr(0, bar) == text) return true;
    if (bar == std::string_view::npos) return false;
    choices.remove_prefix(bar + 1);
  }
}

std::optional<uint64_t> parse_u64(std::string_view text) {
  if (text.empty() || text.size() > 20) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    const uint64_t digit = static_cast<uint64_t>(c - '0');
    if (value > (UINT64_MAX - digit) / 10) return std::nullopt;
    value = value * 10 + digit;
  }
  return value;
}

std::optional<bool> parse_bool(std::string_view text) {
  if (text == "true" || text == "1" || text == "on" || text == "yes") return true;
  if (text == "false" || text == "0" || text == "off" || text == "no") return false;
  return std::nullopt;
}

/// Address and port of "127.0.0.1:8080" or "[::1]:8080".
std::optional<std::pair<std::string, uint16_t>> split_bind(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  std::string_view address = text.substr(0, colon);
  const auto port = parse_u64(text.substr(colon + 1));
  if (!port || *port > UINT16_MAX) return std::nullopt;
  if (address.size() >= 2 && address.front() == '[' && address.back() == ']') {
    address = address.substr(1, address.size() - 2);
  } else if (address.find(':') != std::string_view::npos) {
    return std::nullopt;
  }
  if (address == "localhost") address = "127.0.0.1";
  if (address.empty()) return std::nullopt;
  return std::pair(std::string(address), static_cast<uint16_t>(*port));
}

/// What is wrong with `text` as a value of `row`; empty if nothing. Stores it if `out` is given.
std::string problem_with(const SettingRow& row, std::string_view text, Settings& out) {
  const std::string shown = row.secret ? std::string("(hidden)") : fmt::format("\"{}\"", text);
  if (row.default_only && text != row.default_text) {
    return fmt::format("is not supported by this build yet: got {}, only the default works", shown);
  }
  if (const auto* field = std::get_if<uint64_t Settings::*>(&row.field)) {
    const auto value = parse_u64(text);
    if (!value || *value < row.min || *value > row.max) {
      return fmt::format("must be a whole number from {} to {} ({}): got {}", row.min, row.max,
                         row.unit, shown);
    }
    out.*(*field) = *value;
  } else if (const auto* flag = std::get_if<bool Settings::*>(&row.field)) {
    const auto value = parse_bool(text);
    if (!value) return fmt::format("must be true or false: got {}", shown);
    out.*(*flag) = *value;
  } else {
    if (!row.unit.empty() && !is_choice(row.unit, text)) {
      return fmt::format("must be one of {}: got {}", row.unit, shown);
    }
    if (text.find('\0') != std::string_view::npos) return "holds a NUL byte";
    if (row.name == "bind" && !split_bind(text)) {
      return fmt::format("must be address:port, an IPv6 address in brackets: got {}", shown);
    }
    if (row.name == "data_dir" && text.empty()) return "must not be empty";
    out.*std::get<std::string Settings::*>(row.field) = text;
  }
  return {};
}

const SettingRow* find_row(std::string_view name) {
  for (const SettingRow& row : kRows) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kBlanks = " \t\r";
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlanks) - first + 1);
}

/// The value side of a line: quoted text ("..." or '...', without escapes), or bare text up to a
/// comment. Nothing if a quote is not closed or something follows it.
std::optional<std::string> parse_file_value(std::string_view text) {
  text = trim(text);
  if (!text.empty() && (text.front() == '"' || text.front() == '\'')) {
    const size_t end = text.find(text.front(), 1);
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view rest = trim(text.substr(end + 1));
    if (!rest.empty() && rest.front() != '#') return std::nullopt;
    return std::string(text.substr(1, end - 1));
  }
  return std::string(trim(text.substr(0, text.find('#'))));
}

/// Lines of `key = value`, '#' comments. Unknown or repeated keys are errors: a typing slip in a
/// file that is written once must not go unseen.
Result<std::map<std::string, std::string>> parse_config(const SettingSources& sources) {
  std::map<std::string, std::string> out;
  std::string_view rest = *sources.config_text;
  for (size_t number = 1; !rest.empty(); ++number) {
    const size_t end = rest.find('\n');
    const std::string_view line = trim(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (line.empty() || line.front() == '#') continue;
    const auto place = [&] { return fmt::format("{} line {}", sources.config_name, number); };
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) {
      return invalid_argument(fmt::format("{}: want key = value", place()));
    }
    const std::string key(trim(line.substr(0, equals)));
    if (find_row(key) == nullptr) {
      return invalid_argument(fmt::format("{}: unknown setting \"{}\"", place(), key));
    }
    auto value = parse_file_value(line.substr(equals + 1));
    if (!value) return invalid_argument(fmt::format("{}: {} is badly quoted", place(), key));
    if (!out.emplace(key, std::move(*value)).second) {
      return invalid_argument(fmt::format("{}: {} comes twice", place(), key));
    }
  }
  return out;
}

/// Where a value was found, and how that source spells the setting.
struct Found {
  std::string text;
  std::string spelled;
};

Found find_value(const SettingRow& row, const SettingSources& sources,
                 const std::map<std::string, std::string>& file) {
  const std::string name(row.name);
  if (const auto flag = sources.flags.find(name); flag != sources.flags.end()) {
    return {flag->second, setting_flag(row)};
  }
  const std::string variable = setting_variable(row);
  if (const auto set = sources.environment.find(variable); set != sources.environment.end()) {
    return {set->second, variable};
  }
  if (const auto line = file.find(name); line != file.end()) {
    return {line->second, fmt::format("{}: {}", sources.config_name, name)};
  }
  return {std::string(row.default_text), name};
}

/// The library takes the best kernels when it does not know the wanted ones; for a server that
/// would hide a typing slip.
Status check_simd(const SettingSources& sources) {
  const auto wanted = sources.environment.find(std::string(kSimdVariable));
  if (wanted == sources.environment.end() || wanted->second.empty()) return {};
  const std::vector<std::string_view> names = Database::simd_targets();
  if (std::find(names.begin(), names.end(), wanted->second) != names.end()) return {};
  return invalid_argument(fmt::format("{} must be one of {} on this CPU: got \"{}\"", kSimdVariable,
                                      fmt::join(names, ", "), wanted->second));
}

std::string_view without_slashes(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  return path;
}

Status check_together(const Settings& settings) {
  const std::string data(without_slashes(settings.data_dir));
  const std::string backups(without_slashes(settings.backup_dir));
  if (backups == data || backups.starts_with(data + "/")) {
    return invalid_argument(
        "AIONBD_BACKUP_DIR must not be AIONBD_DATA_DIR or inside it: backups are to survive it");
  }
  if (settings.memory_budget_mb > 0 && settings.memory_budget_bytes > 0 &&
      settings.memory_budget_mb * kMiB != settings.memory_budget_bytes) {
    return invalid_argument(
        "AIONBD_MEMORY_BUDGET_MB and AIONBD_MEMORY_BUDGET_BYTES are both set and differ");
  }
  if (settings.max_body_memory_bytes < settings.max_body_bytes) {
    return invalid_argument(
        fmt::format("max_body_memory_bytes must be at least max_body_bytes ({}): got {}",
                    settings.max_body_bytes, settings.max_body_memory_bytes));
  }
  return {};
}

void add_warnings(const SettingSources& sources, LoadedSettings& out) {
  const Settings& settings = out.settings;
  if (settings.wal_sync_on_write &&
      (settings.wal_sync_every_n_writes > 0 || settings.wal_sync_interval_seconds > 0)) {
    out.warnings.push_back(
        "wal_sync_every_n_writes and wal_sync_interval_seconds only act with wal_sync_on_write "
        "off");
  }
  if (!settings.persistence_enabled) {
    out.warnings.push_back("persistence is off: all data is gone when the program ends");
  }
  for (const auto& entry : sources.environment) {
    const std::string& name = entry.first;
    if (!name.starts_with(kVariablePrefix)) continue;
    const bool known =
        std::any_of(kRows.begin(), kRows.end(),
                    [&](const SettingRow& row) { return setting_variable(row) == name; }) ||
        std::find(kOtherVariables.begin(), kOtherVariables.end(), name) != kOtherVariables.end();
    if (!known) out.warnings.push_back(fmt::format("unknown environment variable {}", name));
  }
}

std::string shown_value(const SettingRow& row, const Settings& settings) {
  if (const auto* field = std::get_if<uint64_t Settings::*>(&row.field)) {
    return std::to_string(settings.*(*field));
  }
  if (const auto* flag = std::get_if<bool Settings::*>(&row.field)) {
    return settings.*(*flag) ? "true" : "false";
  }
  const std::string& text = settings.*std::get<std::string Settings::*>(row.field);
  return row.secret && !text.empty() ? "(set)" : text;
}

std::string range_of(const SettingRow& row) {
  if (is_bool(row)) return "true, false";
  if (is_text(row)) {
    std::string choices;
    for (const char c : row.unit)
      choices += c == '|' ? std::string_view(", ") : std::string_view(&c, 1);
    return choices;
  }
  return fmt::format("{}..{} {}", row.min, row.max, row.unit);
}

}  // namespace

uint64_t Settings::memory_budget() const {
  return memory_budget_bytes > 0 ? memory_budget_bytes : memory_budget_mb * kMiB;
}

std::string Settings::bind_address() const {
  const auto parts = split_bind(bind);
  return parts ? parts->first : std::string();
}

uint16_t Settings::bind_port() const {
  const auto parts = split_bind(bind);
  return parts ? parts->second : uint16_t{0};
}

std::span<const SettingRow> setting_rows() {
  return kRows;
}

std::string setting_variable(const SettingRow& row) {
  std::string out(kVariablePrefix);
  for (const char c : row.name) {
    out.push_back(c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c);
  }
  return out;
}

std::string setting_flag(const SettingRow& row) {
  std::string out(kFlagPrefix);
  for (const char c : row.name) out.push_back(c == '_' ? '-' : c);
  return out;
}

Result<LoadedSettings> load_settings(const SettingSources& sources) {
  std::map<std::string, std::string> file;
  if (sources.config_text) {
    ASSIGN_OR_RETURN(file, parse_config(sources));
  }
  for (const auto& [name, value] : sources.flags) {
    if (find_row(name) == nullptr) {
      return invalid_argument(fmt::format("unknown setting \"{}\"", name));
    }
  }
  LoadedSettings out;
  for (const SettingRow& row : kRows) {
    const Found found = find_value(row, sources, file);
    const std::string problem = problem_with(row, found.text, out.settings);
    if (!problem.empty()) {
      return invalid_argument(fmt::format("{} {}", found.spelled, problem));
    }
  }
  RETURN_IF_ERROR(check_together(out.settings));
  RETURN_IF_ERROR(check_simd(sources));
  add_warnings(sources, out);
  return out;
}

DatabaseOptions database_options(const Settings& settings) {
  DatabaseOptions out;
  out.data_dir = settings.data_dir;
  out.persistent = settings.persistence_enabled;
  out.durability.sync_on_write = settings.wal_sync_on_write;
  out.durability.sync_every_n_writes = settings.wal_sync_every_n_writes;
  out.durability.sync_interval = std::chrono::seconds(settings.wal_sync_interval_seconds);
  out.dimension_max = static_cast<uint32_t>(settings.max_dimension);
  out.points_per_collection_max = settings.max_points_per_collection;
  out.memory_budget_bytes = settings.memory_budget();
  out.group_commit_batch_max = static_cast<uint32_t>(settings.wal_group_commit_max_batch);
  out.group_commit_delay = std::chrono::milliseconds(settings.wal_group_commit_flush_delay_ms);
  out.checkpoint_interval = static_cast<uint32_t>(settings.checkpoint_interval);
  out.async_checkpoints = settings.async_checkpoints;
  out.compact_after = static_cast<uint32_t>(settings.checkpoint_compact_after);
  out.disk_reserve_bytes = settings.disk_reserve_mb << 20;
  out.ivf_nprobe_default = static_cast<uint32_t>(settings.ivf_nprobe_default);
  out.index_build_cooldown = std::chrono::milliseconds(settings.l2_index_build_cooldown_ms);
  out.index_builds_max = static_cast<uint32_t>(settings.l2_index_build_max_in_flight);
  out.index_warmup_on_boot = settings.l2_index_warmup_on_boot;
  out.recall_audit = settings.recall_audit;
  out.search_threads = static_cast<uint32_t>(settings.search_threads);
  return out;
}

std::string print_settings(TableFormat format, const Settings* current) {
  const bool markdown = format == TableFormat::kMarkdown;
  std::string out;
  if (markdown) {
    out += "| Setting | Flag | Default | Allowed | Meaning |\n|---|---|---|---|---|\n";
  }
  for (const SettingRow& row : kRows) {
    const std::string value =
        current == nullptr ? std::string(row.default_text) : shown_value(row, *current);
    std::string help;
    for (const char c : row.help) {
      if (c == '|' && markdown) help += '\\';  // a bar would end the cell
      help += c;
    }
    if (row.default_only) help += " Not in this build yet.";
    if (markdown) {
      out +=
          fmt::format("| `{}` | `{}` | {} | {} | {} |\n", setting_variable(row), setting_flag(row),
                      value.empty() ? "-" : fmt::format("`{}`", value), range_of(row), help);
    } else {
      out += fmt::format("{:<42} {:<18} {}\n", setting_variable(row), value.empty() ? "-" : value,
                         help);
    }
  }
  return out;
}

}  // namespace aionbd
