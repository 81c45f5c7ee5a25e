"""Creates, holds, resumes and evicts the sessions of a worker."""
