// The embeddable vector database. Start at `Database::open`.
#pragma once

#include "aionbd/collection.h"
#include "aionbd/database.h"
#include "aionbd/distance.h"
#include "aionbd/filter.h"
#include "aionbd/metrics.h"
#include "aionbd/options.h"
#include "aionbd/status.h"
#include "aionbd/store.h"
#include "aionbd/types.h"
