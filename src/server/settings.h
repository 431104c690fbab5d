// Everything an operator can set: one table (settings.cc), one precedence, one way to refuse.
//
// A setting has one name, e.g. "wal_sync_on_write". Derived from it, never spelled: the environment
// variable AIONBD_WAL_SYNC_ON_WRITE, the flag --wal-sync-on-write, the config file's key.
// Precedence: flag, environment, file, default.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "aionbd/options.h"
#include "aionbd/status.h"

namespace aionbd {

struct Settings {
  std::string bind;
  std::string data_dir;
  std::string backup_dir;
  uint64_t backup_keep = 0;
  uint64_t max_dimension = 0;
  uint64_t max_points_per_collection = 0;
  uint64_t memory_budget_mb = 0;
  uint64_t memory_budget_bytes = 0;
  bool strict_finite = true;
  uint64_t request_timeout_ms = 0;
  uint64_t max_body_bytes = 0;
  uint64_t max_body_memory_bytes = 0;
  uint64_t max_concurrency = 0;
  uint64_t max_connections = 0;
  uint64_t max_page_limit = 0;
  uint64_t max_topk_limit = 0;
  uint64_t upsert_batch_max_points = 0;
  uint64_t search_batch_max_queries = 0;
  uint64_t search_threads = 0;
  bool persistence_enabled = true;
  bool wal_sync_on_write = true;
  uint64_t wal_sync_every_n_writes = 0;
  uint64_t wal_sync_interval_seconds = 0;
  uint64_t wal_group_commit_max_batch = 0;
  uint64_t wal_group_commit_flush_delay_ms = 0;
  uint64_t checkpoint_interval = 0;
  bool async_checkpoints = false;
  uint64_t checkpoint_compact_after = 0;
  uint64_t disk_reserve_mb = 0;
  uint64_t ivf_nprobe_default = 0;
  uint64_t l2_index_build_cooldown_ms = 0;
  uint64_t l2_index_build_max_in_flight = 0;
  bool l2_index_warmup_on_boot = true;
  bool recall_audit = true;
  bool tls_enabled = false;
  std::string tls_cert_path;
  std::string tls_key_path;
  std::string auth_mode;
  std::string auth_api_keys;
  std::string auth_api_key_scopes;
  std::string auth_bearer_tokens;
  std::string auth_jwt_hs256_secret;
  std::string auth_jwt_issuer;
  std::string auth_jwt_audience;
  std::string auth_jwt_tenant_claim;
  std::string auth_jwt_principal_claim;
  uint64_t auth_rate_limit_per_minute = 0;
  uint64_t auth_tenant_max_collections = 0;
  uint64_t auth_tenant_max_points = 0;
  std::string log_level;
  std::string log_format;

  /// Both budget settings as one figure, in bytes; 0 = unlimited.
  uint64_t memory_budget() const;
  /// The two halves of `bind`; checked when loaded.
  std::string bind_address() const;
  uint16_t bind_port() const;
};

/// One row of the table. `min` and `max` are for numbers.
struct SettingRow {
  using Field = std::variant<std::string Settings::*, bool Settings::*, uint64_t Settings::*>;
  std::string_view name;
  Field field;
  std::string_view default_text;
  uint64_t min = 0;
  uint64_t max = 0;
  std::string_view unit;  // "bytes", "ms", ...; for text, the choices separated by '|', or empty
  std::string_view help;
  bool secret = false;
  /// Not yet in this build: anything but the default is refused.
  bool default_only = false;
  /// Whether a running server can take a new value. None can, so far.
  bool reloadable = false;
};

std::span<const SettingRow> setting_rows();
/// "AIONBD_WAL_SYNC_ON_WRITE"
std::string setting_variable(const SettingRow& row);
/// "--wal-sync-on-write"
std::string setting_flag(const SettingRow& row);

/// Where values come from; read by the program, judged here.
struct SettingSources {
  std::map<std::string, std::string> flags;        // by setting name
  std::map<std::string, std::string> environment;  // whole; names without AIONBD_ are ignored
  std::optional<std::string> config_text;          // content of the config file
  std::string config_name = "config file";         // for messages
};

struct LoadedSettings {
  Settings settings;
  std::vector<std::string> warnings;
};

/// Errors: invalid_argument naming the setting as its source spells it, what is wrong and what is
/// allowed. Secrets are never in a message.
Result<LoadedSettings> load_settings(const SettingSources& sources);

/// What the engine is to do. `log` stays empty.
DatabaseOptions database_options(const Settings& settings);

enum class TableFormat : uint8_t { kText, kMarkdown };
/// The table with defaults, or with the values of `current` (secrets as "(set)").
std::string print_settings(TableFormat format, const Settings* current = nullptr);

}  // namespace aionbd
